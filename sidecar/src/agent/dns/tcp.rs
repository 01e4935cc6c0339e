//! Questions over TCP, each after its length.
//!
//! A connection may ask several, in order. What does not speak DNS, dawdles or asks too much is
//! closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::message::MAX_QUESTION;
use super::{DnsContext, Reply};

/// Connections at once: clients turn to TCP only after UDP failed them.
const CONNECTIONS: usize = 64;

/// The next question must be whole within this time, and each reply taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection lives this long at most.
const LIFETIME: Duration = Duration::from_mins(1);

/// And asks this much at most.
const QUESTIONS: usize = 256;

/// Accepting failed for want of descriptors or memory: not again at once.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers questions on connections to `listener` for as long as it lasts.
pub async fn serve_tcp(listener: TcpListener, context: Arc<DnsContext>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection for DNS could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Dropped when there is no place: closed at once is better than waiting.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let context = Arc::clone(&context);
        tokio::spawn(async move {
            let served = timeout(LIFETIME, converse(stream, &context)).await;
            if let Ok(Err(error)) = served {
                tracing::debug!(%error, "a connection for DNS failed");
            }
            drop(place);
        });
    }
}

async fn converse(mut stream: TcpStream, context: &DnsContext) -> std::io::Result<()> {
    let mut buffer = vec![0; MAX_QUESTION];
    for _ in 0..QUESTIONS {
        let Ok(read) = timeout(PATIENCE, question(&mut stream, &mut buffer)).await else {
            return Ok(());
        };
        let reply = match read? {
            Read::Question(length) => context.reply(&buffer[..length]),
            Read::End => return Ok(()),
            Read::NotDns => Reply::Malformed(None),
        };
        let reply = match reply {
            Reply::Send(reply) => reply,
            Reply::Malformed(_) => {
                context.deny_stream();
                return Ok(());
            }
            Reply::Drop => return Ok(()),
        };
        // A reply is far below 64 KiB.
        let Ok(length) = u16::try_from(reply.len()) else {
            return Ok(());
        };
        let mut framed = Vec::with_capacity(reply.len() + 2);
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&reply);
        let Ok(written) = timeout(PATIENCE, stream.write_all(&framed)).await else {
            return Ok(());
        };
        written?;
    }
    Ok(())
}

enum Read {
    Question(usize),
    End,
    NotDns,
}

async fn question(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<Read> {
    let mut length = [0; 2];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(Read::End);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = usize::from(u16::from_be_bytes(length));
    let Some(room) = buffer.get_mut(..length) else {
        return Ok(Read::NotDns);
    };
    stream.read_exact(room).await?;
    Ok(Read::Question(length))
}
