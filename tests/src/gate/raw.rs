//! A server that keeps what it hears and says what it is told to say, whatever it was asked.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Result;

use super::Gate;
use crate::netns::Persona;

/// The server; its threads end with the test's process.
#[derive(Clone, Debug)]
pub struct Raw {
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    say: Arc<Mutex<Vec<u8>>>,
}

// === impl Raw ===

impl Raw {
    /// Listens at an address of the world and answers the first bytes of each connection with `say`.
    pub fn start(gate: &Gate, at: &str, say: &[u8]) -> Result<Self> {
        let at: SocketAddr = at.parse()?;
        let listener = gate
            .pod
            .outside
            .run(Persona::Root, || TcpListener::bind(at))??;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let say = Arc::new(Mutex::new(say.to_vec()));
        let raw = Self {
            heard: Arc::clone(&heard),
            say: Arc::clone(&say),
        };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let index = {
                    let mut heard = lock(&heard);
                    heard.push(Vec::new());
                    heard.len() - 1
                };
                let (heard, say) = (Arc::clone(&heard), Arc::clone(&say));
                thread::spawn(move || {
                    // A test never takes longer; a connection that is forgotten ends by itself.
                    drop(stream.set_read_timeout(Some(Duration::from_secs(60))));
                    let mut buffer = [0; 4096];
                    let mut first = true;
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        lock(&heard)[index].extend_from_slice(&buffer[..length]);
                        let say = lock(&say).clone();
                        if std::mem::take(&mut first) && stream.write_all(&say).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Ok(raw)
    }

    /// Says this from now on.
    pub fn say(&self, bytes: &[u8]) {
        *lock(&self.say) = bytes.to_vec();
    }

    /// What came in, a connection each.
    #[must_use]
    pub fn heard(&self) -> Vec<Vec<u8>> {
        lock(&self.heard).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
