//! How the stages of a run speak to each other: messages with file descriptors over a socket pair.
//!
//! Each stage is this program again (`/proc/self/exe`), and finds its end of the pair as its
//! standard input; the true standard input comes with the first message. The command never holds an
//! end. In doubt (a message too long, cut short, not understood) it is an error, and the run ends.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest list of files that a run protects is far below this.
const MAX_MESSAGE: usize = 4 << 20;

/// Listeners of both families are eight; the kernel takes at most 253.
const MAX_DESCRIPTORS: usize = 32;

/// One end.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

// === impl Channel ===

impl Channel {
    /// An end to keep, and the end that becomes the standard input of the next stage.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self(ours), theirs.into()))
    }

    /// The end that a stage was started with.
    pub(super) fn from_stdin() -> io::Result<Self> {
        let fd = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self(fd.into()))
    }

    /// The same end once more, to wait at in another thread.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Sends one message with its descriptors.
    pub(super) fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len())
            .ok()
            .filter(|_| body.len() <= MAX_MESSAGE && fds.len() <= MAX_DESCRIPTORS)
            .ok_or(io::ErrorKind::InvalidInput)?
            .to_be_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // The descriptors travel with the first byte of the length.
        let sent = rustix::net::sendmsg(
            &self.0,
            &[IoSlice::new(&length)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        (&self.0).write_all(&length[sent..])?;
        (&self.0).write_all(&body)
    }

    /// Waits for one message.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<(T, Vec<OwnedFd>)> {
        let mut length = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut length)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?
        .bytes;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        (&self.0).read_exact(&mut length[got..])?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length];
        (&self.0).read_exact(&mut body)?;
        Ok((serde_json::from_slice(&body)?, fds))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use std::fs::File;

    #[test]
    fn descriptors_arrive_with_their_message() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel(theirs.into());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"here").unwrap();
        ours.send(&"first", &[file.as_fd()]).unwrap();
        ours.send(&vec!["x"; 50_000], &[]).unwrap();
        let (first, mut fds): (String, _) = theirs.receive().unwrap();
        assert_eq!((first.as_str(), fds.len()), ("first", 1));
        assert_eq!(
            File::from(fds.remove(0)).metadata().unwrap().len(),
            b"here".len() as u64
        );
        let (second, fds): (Vec<String>, _) = theirs.receive().unwrap();
        assert_eq!((second.len(), fds.len()), (50_000, 0));
    }

    #[test]
    fn a_lost_peer_is_an_error() {
        let (ours, theirs) = Channel::pair().unwrap();
        drop(theirs);
        assert_eq!(
            ours.receive::<String>().unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
