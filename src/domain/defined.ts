type Keys<T> = { [Key in keyof T as undefined extends T[Key] ? never : Key]: T[Key] };
type Optionals<T> = { [Key in keyof T as undefined extends T[Key] ? Key : never]?: Exclude<T[Key], undefined> };

/** The object without the fields that are undefined: under `exactOptionalPropertyTypes` "not there" and "undefined" differ. */
export function defined<T extends object>(object: T): Keys<T> & Optionals<T> {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as Keys<T> &
    Optionals<T>;
}
