//! Opaque bytes, both ways, without copying them where the kernel can move them.
//!
//! Only a rule that declares a connection opaque comes here. Half-close is passed on: a side that has
//! said all it will say may still be answered.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use bytes::BytesMut;
use nix::{
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::pipe2,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest},
    net::TcpStream,
};

use crate::{agent::stream::Transport, ledger::OutcomeGuard};

/// Bytes a pipe holds between two sockets. The kernel's default is 64 KiB; 256 KiB saves wake-ups
/// on fast streams and stays under `/proc/sys/fs/pipe-max-size` for unprivileged users (1 MiB).
const PIPE_SIZE: i32 = 256 * 1024;

/// Bytes a copy moves at once where splice can't be used.
const COPY_SIZE: usize = 32 * 1024;

/// An opaque connection with no byte either way for this long is closed: longer than the idle
/// limits of databases and brokers that send keepalives of their own.
const IDLE: Duration = Duration::from_hours(1);

/// Relays until both sides are done, counting into `guard`. `ahead` was read from the agent already.
pub async fn relay(
    agent: &mut Transport,
    upstream: &mut TcpStream,
    ahead: BytesMut,
    guard: &OutcomeGuard,
) -> io::Result<()> {
    let sent = |bytes: u64| guard.sent(bytes);
    let received = |bytes: u64| guard.received(bytes);
    idle(upstream.write_all(&ahead)).await?;
    sent(ahead.len() as u64);
    drop(ahead);
    match agent {
        Transport::Tcp(agent) => {
            let out = splice_one_way(agent, upstream, sent);
            let back = splice_one_way(upstream, agent, received);
            both(out, back).await
        }
        Transport::Tunnel(agent) => {
            let (agent_read, agent_write) = tokio::io::split(agent);
            let (upstream_read, upstream_write) = upstream.split();
            let out = copy_one_way(agent_read, upstream_write, sent);
            let back = copy_one_way(upstream_read, agent_write, received);
            both(out, back).await
        }
    }
}

async fn both(
    out: impl Future<Output = io::Result<()>>,
    back: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    // An error on either way ends both: what is left could not be answered.
    tokio::try_join!(out, back).map(|_| ())
}

async fn idle<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(IDLE, step)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "idle for an hour")))
}

/// Moves bytes from one socket to the other through a pipe, in the kernel.
async fn splice_one_way(from: &TcpStream, to: &TcpStream, count: impl Fn(u64)) -> io::Result<()> {
    let pipe = Pipe::new()?;
    loop {
        let filled = idle(move_ready(
            from,
            Interest::READABLE,
            from,
            &pipe.write,
            pipe.size,
        ))
        .await?;
        if filled == 0 {
            // Only the writing half: the other side may have more to say.
            return socket2::SockRef::from(to)
                .shutdown(std::net::Shutdown::Write)
                .or_else(|error| match error.kind() {
                    io::ErrorKind::NotConnected => Ok(()),
                    _ => Err(error),
                });
        }
        let mut left = filled;
        while left > 0 {
            let moved = idle(move_ready(to, Interest::WRITABLE, &pipe.read, to, left)).await?;
            if moved == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            left -= moved;
            count(moved as u64);
        }
    }
}

/// One splice, when `socket` is ready for it.
async fn move_ready(
    socket: &TcpStream,
    interest: Interest,
    from: &impl AsFd,
    to: &impl AsFd,
    length: usize,
) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    socket
        .async_io(interest, || {
            splice(from, None, to, None, length, flags).map_err(io::Error::from)
        })
        .await
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        // Over the user's pipe quota it stays at its default size, which is only slower.
        let size = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE)).unwrap_or(64 * 1024);
        Ok(Self {
            read,
            write,
            size: usize::try_from(size).unwrap_or(64 * 1024),
        })
    }
}

async fn copy_one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: impl Fn(u64),
) -> io::Result<()> {
    let mut buffer = vec![0; COPY_SIZE];
    loop {
        let length = idle(from.read(&mut buffer)).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        idle(to.write_all(&buffer[..length])).await?;
        count(length as u64);
    }
}
