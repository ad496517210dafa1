// A database that cannot be asked.

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";

import { assertQuiet, browse, picture, serve, violations } from "./support.mjs";

const server = await serve("unfair");
const browser = await browse();

/** Takes a table away from under the server, or gives it back. */
function rename(from, to) {
    const database = new DatabaseSync(server.database);
    database.exec(`PRAGMA legacy_alter_table = ON; ALTER TABLE ${from} RENAME TO ${to}`);
    database.close();
}

test("where the database fails the page says so, and trying again helps once it is back", async (t) => {
    const page = await browser.page(t);
    const path = "/?group_by=age";
    rename("users", "users_away");
    const answer = await page.goto(server.url + path);
    assert.ok(answer.status() >= 500, `${answer.status()}`);
    const said = await page.locator("main").innerText();
    assert.match(said, /again/i);
    assert.doesNotMatch(said, /users|SQL|no such table/);
    await picture(page, "failed", 1280, "light");
    assert.deepEqual(await violations(page), []);
    assertQuiet(page, server, { except: [`status of ${answer.status()}`] });
    rename("users_away", "users");
    await page.getByRole("link", { name: /again/i }).click();
    await page.locator("#groups svg").first().waitFor();
    assert.equal(new URL(page.url()).search, "?group_by=age");
});
