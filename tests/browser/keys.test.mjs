// Who may see what, where keys are asked for.

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { Server, assertQuiet, browse, picture, until, violations } from "./support.mjs";

const TEXTS = ["A drink?", "the first answer", "the second answer", "Name a drink"];
const REFUSED = { except: ["status of 401"] };

const server = await Server.of("unfair");
async function key(name, scopes) {
    const said = await server.run("keys", "create", "--name", name, "--scopes", scopes);
    return said.match(/pr_\S+/)[0];
}
const keys = {
    reads: await key("reads", "read"),
    texts: await key("texts", "read,read:text"),
    scores: await key("scores", "score"),
    goes: await key("goes", "read"),
};
await server.start();
after(() => server.remove());
const browser = await browse();

const login = (password) => ({ httpCredentials: { username: "anybody", password } });

test("without a key there is a page that says what is needed", async (t) => {
    const page = await browser.page(t);
    // What is shown to somebody who closes the browser's own question.
    let asked;
    await page.route(server.url + "/", async (route) => {
        const response = await route.fetch();
        const { "www-authenticate": question, ...headers } = response.headers();
        asked = question;
        await route.fulfill({ response, headers });
    });
    assert.equal((await page.goto(server.url)).status(), 401);
    assert.match(asked, /^Basic /);
    assert.match(await page.locator("main").innerText(), /key/);
    await picture(page, "unauthorized", 1280, "light");
    assert.deepEqual(await violations(page), []);
    assertQuiet(page, server, REFUSED);
});

test("a key that may not read is told so", async (t) => {
    const page = await browser.page(t, login(keys.scores));
    const answer = await page.goto(server.url);
    assert.equal(answer.status(), 403);
    assert.match(await page.locator("main").innerText(), /read/);
    assertQuiet(page, server, { except: ["status of 401", "status of 403"] });
});

for (const path of ["/", "/dashboard/users/is-1", "/dashboard/models"]) {
    test(`${path} shows no text of prompts and responses to a key without read:text`, async (t) => {
        const page = await browser.page(t, login(keys.reads));
        const answer = await page.goto(server.url + path);
        assert.equal(answer.status(), 200);
        const source = (await answer.text()) + (await page.content());
        for (const text of TEXTS) assert.ok(!source.includes(text), text);
        assertQuiet(page, server, REFUSED);
    });
}

test("a key with read:text sees what the model got wrong", async (t) => {
    const page = await browser.page(t, login(keys.texts));
    await page.goto(server.url);
    assert.match(await page.locator("#mistakes").innerText(), /the (first|second) answer/);
    assertQuiet(page, server, REFUSED);
});

test("a key that was revoked opens nothing any more", async (t) => {
    const basic = `Basic ${btoa(`anybody:${keys.goes}`)}`;
    const status = async () => (await server.fetch("/", { headers: { authorization: basic } })).status;
    assert.equal(await status(), 200);
    const id = (await server.run("keys", "list")).split("\n").find((line) => line.includes("goes")).match(/\S{8,}/)[0];
    await server.run("keys", "revoke", id);
    // What is known of a key is remembered for some seconds.
    await until(async () => (await status()) === 401);
    const page = await browser.page(t, login(keys.goes));
    assert.equal((await page.goto(server.url)).status(), 401);
});
