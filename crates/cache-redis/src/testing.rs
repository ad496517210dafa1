//! A Redis server for one test.

use std::{
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
};

use redis::{AsyncCommands, Client, aio::MultiplexedConnection};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::PREFIX;

/// Names the server's binary, where it is another than `redis-server`.
pub const SERVER: &str = "TEST_REDIS_SERVER";

/// Runs the server, says its log on, and kills it when standard input ends: that happens also when the test is killed.
const KEEPER: &str =
    r#"exec 3<&0; "$@" </dev/null & server=$!; cat <&3 >/dev/null; kill -9 $server 2>/dev/null; wait"#;

/// A server that listens on a socket in a folder of its own, keeps nothing on disk, and is gone with its value.
#[derive(Debug)]
pub struct TestRedis {
    folder: TempDir,
    options: Vec<String>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    keeper: Child,
    /// The keeper ends with it.
    input: ChildStdin,
    server: Pid,
}

impl TestRedis {
    /// Starts a server.
    ///
    /// # Panics
    /// There is none: a test that needs one does not pass without.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more options than its own.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut redis = Self { folder, options, running: None };
        redis.run();
        redis
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// What connects to it.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Starts it again, on the same socket, with nothing in it.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn run(&mut self) {
        self.kill();
        let binary = env::var(SERVER).unwrap_or_else(|_| "redis-server".to_owned());
        let mut keeper = Command::new("sh")
            .args([
                "-c",
                KEEPER,
                "sh",
                &binary,
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--unixsocket",
            ])
            .arg(self.socket())
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let input = keeper.stdin.take().expect("it is piped");
        let mut log =
            BufReader::new(keeper.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        let ready = log.find(|line| line.contains("eady to accept connections")).unwrap_or_else(|| {
            panic!("{binary} does not run; `make setup-test` installs it, {SERVER} names another one")
        });
        // PID:M, then the time.
        let pid = ready.split(':').next().and_then(|pid| pid.trim().parse().ok()).and_then(Pid::from_raw);
        let server = pid.expect("a line of its log begins with its process");
        // It must not stop for a log that nobody reads.
        std::thread::spawn(move || log.for_each(drop));
        self.running = Some(Running { keeper, input, server });
    }

    /// Kills it, as a crash would.
    ///
    /// # Panics
    /// The shell that runs it cannot be waited for.
    pub fn kill(&mut self) {
        if let Some(Running { mut keeper, input, .. }) = self.running.take() {
            drop(input);
            keeper.wait().expect("it is our child");
        }
    }

    /// Makes it hang: it answers nobody, and what is sent to it waits.
    ///
    /// # Panics
    /// It does not run.
    pub fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// It does not run.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let running = self.running.as_ref().expect("it runs");
        kill_process(running.server, signal).expect("it is our process");
    }

    async fn connection(&self) -> MultiplexedConnection {
        let client = Client::open(self.url()).expect("a URL of ours");
        client.get_multiplexed_async_connection().await.expect("it runs")
    }

    /// The names of our values in it.
    ///
    /// # Panics
    /// It cannot be asked.
    pub async fn names(&self) -> Vec<String> {
        self.connection().await.keys(format!("{PREFIX}*")).await.expect("it answers")
    }

    /// Runs a command.
    ///
    /// # Panics
    /// It cannot be asked, or refuses.
    pub async fn command(&self, words: &[&str]) {
        command(words).exec_async(&mut self.connection().await).await.expect("it answers");
    }

    /// What a command answers, where that is a number.
    ///
    /// # Panics
    /// As [`command`](Self::command).
    pub async fn number(&self, words: &[&str]) -> i64 {
        command(words).query_async(&mut self.connection().await).await.expect("it answers")
    }
}

fn command(words: &[&str]) -> redis::Cmd {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        self.kill();
    }
}
