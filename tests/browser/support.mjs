// What the tests share: servers of their own, and pages of one browser that are watched for what must not happen.

import assert from "node:assert/strict";
import { spawn, execFile } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after } from "node:test";
import { setTimeout } from "node:timers/promises";
import { promisify } from "node:util";

export const { TEST_PLACE: place, TEST_BINARY: binary, TEST_PICTURES: pictures } = process.env;
const modules = createRequire(join(process.env.TEST_MODULES, "package.json"));
const { chromium } = modules("playwright-core");
const axe = await readFile(modules.resolve("axe-core/axe.min.js"), "utf8");

export const WIDTHS = { 360: 740, 768: 1024, 1280: 800 };
export const SCHEMES = ["light", "dark"];
export const SECTIONS = [
    "context", "headline", "groups", "shots", "calibration", "intersections", "timeline", "mistakes",
];

const FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
];

/** That of this process, with the small encoder and no other setting of the server's. */
function environment(settings) {
    const kept = Object.entries(process.env).filter(([name]) => !name.startsWith("POLYREWARD_"));
    return { ...Object.fromEntries(kept), POLYREWARD_BACKBONE__PATH: process.env.TEST_BACKBONE, ...settings };
}

/** A server on a copy of a story's database, and what it needs to be stopped and asked. */
export class Server {
    static async of(story, settings = {}) {
        const server = new Server();
        server.settings = { ...settings };
        server.folder = await mkdtemp(join(tmpdir(), "polyreward-server-"));
        server.database = join(server.folder, "people.db");
        await copyFile(join(place, `${story}.db`), server.database);
        return server;
    }

    /** Starts it, on a port that is free or on the one it had. */
    async start() {
        const command = ["serve", "--bind", this.url ? new URL(this.url).host : "127.0.0.1:0", "--models", "models"];
        this.child = spawn(binary, [...command, ...this.at()], {
            cwd: place,
            env: environment(this.settings),
            stdio: ["ignore", "pipe", "ignore"],
        });
        this.ended = once(this.child, "exit");
        process.once("exit", () => this.child.kill("SIGKILL"));
        for await (const line of createInterface({ input: this.child.stdout })) {
            this.url = line.split("listening on ")[1];
            break;
        }
        assert.ok(this.url, "the server ended before it listened");
        return this;
    }

    at() {
        return ["--database-url", `sqlite:${this.database}`];
    }

    async stop() {
        this.child.kill("SIGTERM");
        await this.ended;
    }

    async remove() {
        await this.stop();
        await rm(this.folder, { recursive: true });
    }

    /** Runs another command of the binary on the same database, and gives what it says. */
    async run(...words) {
        const options = { cwd: place, env: environment({}) };
        const { stdout } = await promisify(execFile)(binary, [...words, ...this.at()], options);
        return stdout;
    }

    fetch(path, options) {
        return fetch(new URL(path, this.url), options);
    }

    async json(path) {
        const answer = await this.fetch(path);
        assert.equal(answer.status, 200, path);
        return answer.json();
    }

    post(path, body) {
        const headers = { "content-type": "application/json" };
        return this.fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
    }
}

/** A server for the tests of a file. */
export async function serve(story, settings) {
    const server = await Server.of(story, settings);
    after(() => server.remove());
    return server.start();
}

/** One browser for the tests of a file. */
export async function browse() {
    const browser = await chromium.launch({ executablePath: process.env.TEST_CHROMIUM, args: FLAGS });
    after(() => browser.close());
    return new Browser(browser);
}

class Browser {
    constructor(browser) {
        this.browser = browser;
    }

    /** A page of a fresh profile, that is watched until the test ends. */
    async page(test, { width = 1280, scheme = "light", ...options } = {}) {
        const viewport = { width, height: WIDTHS[width] };
        const context = await this.browser.newContext({ viewport, colorScheme: scheme, ...options });
        const page = await context.newPage();
        const seen = watch(page);
        await context.addInitScript(() =>
            document.addEventListener("securitypolicyviolation", (event) =>
                console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`)),
        );
        test.after(() => context.close());
        return Object.assign(page, { seen });
    }
}

/** What a page says, asks for and loads. */
function watch(page) {
    const seen = { said: [], requests: [], bytes: 0, dialogs: 0, pending: [] };
    page.on("console", (message) => {
        if (["error", "warning"].includes(message.type())) seen.said.push(`${message.type()}: ${message.text()}`);
    });
    page.on("pageerror", (error) => seen.said.push(`uncaught: ${error.message}`));
    page.on("dialog", (dialog) => {
        seen.dialogs += 1;
        return dialog.dismiss();
    });
    page.on("request", (request) => seen.requests.push(request.url()));
    page.on("requestfinished", (request) =>
        seen.pending.push(request.sizes().then((sizes) => (seen.bytes += sizes.responseBodySize))),
    );
    return seen;
}

/** No complaint of the browser's, no question to anybody else, no script of a stranger's. */
export function assertQuiet(page, server, { except = [] } = {}) {
    const { said, requests, dialogs } = page.seen;
    assert.deepEqual(said.filter((line) => !except.some((allowed) => line.includes(allowed))), []);
    const origin = new URL(server.url).origin;
    assert.deepEqual(requests.filter((url) => new URL(url).origin !== origin), []);
    assert.equal(dialogs, 0);
}

/** What axe finds wrong, one line each. */
export async function violations(page) {
    // Not as a script of the page's, whose policy would refuse it.
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id} ${node.target}: ${node.failureSummary}`));
}

/** Pixels by which a page is wider than its window. */
export function overflow(page) {
    return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}

/** A picture of the whole page, for a person to look at. */
export function picture(page, name, width, scheme) {
    return page.screenshot({ path: join(pictures, `${name}-${width}-${scheme}.png`), fullPage: true });
}

/** Waits until something holds, at most `limit` milliseconds. */
export async function until(holds, limit = 20_000) {
    const end = performance.now() + limit;
    while (!(await holds())) {
        assert.ok(performance.now() < end, "it did not come true in time");
        await setTimeout(50);
    }
}

/** The rows of the first table in a section, each cell under the name that its column has in JSON. */
export function tableOf(page, section) {
    return page.locator(`${section} table`).first().evaluate((table) => {
        const fields = [...table.querySelectorAll("thead th")].map((head) => head.dataset.field);
        return [...table.querySelectorAll("tbody tr")].map((row) =>
            Object.fromEntries([...row.children].map((cell, at) => [fields[at], cell.textContent.trim()])),
        );
    });
}

/** The groups that are shown, in their order. */
export async function groupsOf(page) {
    return (await tableOf(page, "#groups")).filter(({ group }) => group !== "overall");
}

/** Opens what is folded, as somebody does who wants to read the tables. */
export function openTables(page) {
    return page.locator("details").evaluateAll((all) => all.forEach((one) => (one.open = true)));
}
