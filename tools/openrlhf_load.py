#!/usr/bin/env python3
"""Asks a server on this machine for rewards as OpenRLHF does: openrlhf_load.py URL [--concurrency N] [--seconds S]

First N connections post one sample each, over and over, for S seconds, as OpenRLHF's workers do; then one client posts
batches for as long. Every text is new, so that none is found in the server's cache, and every answer of the first run
is compared with what the server gives the same text in a batch afterwards. Those find the embeddings in its cache:
start the server with POLYREWARD_BACKBONE__CACHE_BYTES=0 to have them encoded again.

URL is that of /get_reward, with its query and, where there is one, the key: http://any:KEY@127.0.0.1:8080/get_reward.
Exits with 1 where a request failed or an answer was wrong. Needs aiohttp (tools/setup_cache.py --client).
"""

import argparse
import asyncio
import ipaddress
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp

WORDS = (
    "river warm bread window quiet harbour letter garden winter music silver bridge paper morning stone light".split()
)
TOLERANCE = 1e-4
MOST_SECONDS = 600
MOST_AT_ONCE = 4096


@dataclass
class Run:
    """What became of the requests of one kind."""

    seconds: float = 0.0
    samples: int = 0
    latencies_ms: list = field(default_factory=list)
    errors: Counter = field(default_factory=Counter)
    # By number of the text.
    rewards: dict = field(default_factory=dict)

    def line(self, name):
        at = sorted(self.latencies_ms)
        p50, p99 = (statistics.quantiles(at, n=100)[n] for n in (49, 98)) if len(at) > 1 else (at * 2 or [0.0, 0.0])
        rate = self.samples / self.seconds if self.seconds else 0.0
        errors = sum(self.errors.values())
        return f"{name:<12} {len(at):>9} {self.samples:>9} {rate:>11.1f} {p50:>9.1f} {p99:>9.1f} {errors:>7}"


def text_of(number, words):
    """A prompt and the text that begins with it: a text of its own for every number."""
    prompt = f"<|user|>\nquestion {number}<|end|>\n<|assistant|>\n"
    return prompt, prompt + " ".join(WORDS[(number * 7 + at * at) % len(WORDS)] for at in range(words))


def body_of(numbers, words):
    prompts, texts = zip(*(text_of(number, words) for number in numbers))
    return {"query": texts, "prompts": prompts, "labels": [""] * len(numbers)}


async def ask(session, url, run, numbers, words):
    """One request, as OpenRLHF makes it but for its retries: what fails is counted."""
    started = time.perf_counter()
    try:
        async with session.post(url, json=body_of(numbers, words)) as response:
            answer = await response.json(content_type=None)
            if response.status != 200:
                run.errors[f"status {response.status} {answer.get('type', '')}"] += 1
                return
            rewards = answer["rewards"]
    except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
        run.errors[type(error).__name__] += 1
        return
    run.latencies_ms.append(1000 * (time.perf_counter() - started))
    if len(rewards) != len(numbers):
        run.errors["another number of rewards"] += 1
        return
    run.samples += len(numbers)
    run.rewards.update(zip(numbers, rewards))


async def for_a_while(session, url, seconds, clients, batch, first, words):
    """Clients that each post their next batch when the last one is answered, until the time is up."""
    run, next_number = Run(), first
    started = time.perf_counter()

    async def client():
        nonlocal next_number
        while time.perf_counter() - started < seconds:
            numbers = range(next_number, next_number + batch)
            next_number += batch
            await ask(session, url, run, numbers, words)

    await asyncio.gather(*(client() for _ in range(clients)))
    run.seconds = time.perf_counter() - started
    return run, next_number


async def wrong_answers(session, url, run, batch, words):
    """Texts whose reward in a batch is another one than it was alone, and what went wrong with the batches."""
    numbers, again = sorted(run.rewards), Run()
    for start in range(0, len(numbers), batch):
        await ask(session, url, again, numbers[start : start + batch], words)
    differs = [n for n in again.rewards if abs(again.rewards[n] - run.rewards[n]) > TOLERANCE]
    return differs, len(again.rewards), again.errors


async def load(arguments):
    timeout = aiohttp.ClientTimeout(total=180)
    connector = aiohttp.TCPConnector(limit=arguments.concurrency)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def run(clients, batch, first):
            return await for_a_while(session, arguments.url, arguments.seconds, clients, batch, first, arguments.words)

        alone, following = await run(arguments.concurrency, 1, arguments.first)
        together, _ = await run(1, arguments.batch, following)
        differs, checked, errors = await wrong_answers(session, arguments.url, alone, arguments.batch, arguments.words)
    print(f"{'':<12} {'requests':>9} {'samples':>9} {'samples/s':>11} {'p50 ms':>9} {'p99 ms':>9} {'errors':>7}")
    print(alone.line(f"1 x {arguments.concurrency}"))
    print(together.line(f"{arguments.batch} x 1"))
    print(f"{checked} answers compared with those of batches, {len(differs)} differ by more than {TOLERANCE}")
    everything = alone.errors + together.errors + errors
    for what, count in sorted(everything.items()):
        print(f"{count} x {what}", file=sys.stderr)
    return 1 if differs or everything or not checked else 0


def loopback(url):
    """A URL of this machine: nothing else is put under load."""
    host = urlsplit(url).hostname or ""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise argparse.ArgumentTypeError(f"{host or 'no host'} is not this machine's loopback")
    return url


def at_most(most, kind):
    def read(text):
        number = kind(text)
        if not 0 < number <= most:
            raise argparse.ArgumentTypeError(f"is above 0 and at most {most}")
        return number

    return read


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", type=loopback)
    parser.add_argument("--concurrency", type=at_most(MOST_AT_ONCE, int), default=512, help="default: %(default)s")
    parser.add_argument("--seconds", type=at_most(MOST_SECONDS, float), default=60, help="default: %(default)s")
    parser.add_argument("--batch", type=at_most(1024, int), default=64, help="texts of a batch, default: %(default)s")
    parser.add_argument(
        "--words", type=at_most(4096, int), default=48, help="words of a response, default: %(default)s"
    )
    parser.add_argument("--first", type=int, default=int(time.time()) << 20, help="number of the first text")
    sys.exit(asyncio.run(load(parser.parse_args())))


if __name__ == "__main__":
    main()
