# The worker, with its workflows bundled at build time. glibc: Temporal's native module does not run on Alpine.
FROM node:22-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY scripts scripts
COPY test/support test/support
COPY test/mutants test/mutants
COPY src src
RUN npm run build

FROM node:22-bookworm-slim
# Temporal's native client reads the system's certificates.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
WORKDIR /app
ENV NODE_ENV=production
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund && npm cache clean --force
COPY bin bin
COPY --from=build /app/dist/src dist/src
COPY --from=build /app/dist/workflow-bundle.js dist/workflow-bundle.js
USER node
CMD ["node", "bin/keyturn.js", "worker"]
