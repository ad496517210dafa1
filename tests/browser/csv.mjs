// Reads CSV as RFC 4180 has it.

/** The cells of each line. */
export function rowsOf(text) {
    const rows = [];
    let row = [];
    for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g)) {
        row.push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
        if (end === ",") continue;
        if (row.length > 1 || row[0]) rows.push(row);
        row = [];
    }
    return rows;
}

/** Each line by the names of the first. */
export function recordsOf(text) {
    const [names, ...rows] = rowsOf(text);
    return rows.map((row) => Object.fromEntries(names.map((name, at) => [name, row[at]])));
}
