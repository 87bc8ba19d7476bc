//! Frames on a stream socket: eight bytes of head (length of the body, number of descriptors), then the body. Descriptors
//! travel with the first byte of their frame.
//!
//! Knows nothing of what the frames mean. Either end may be hostile: lengths are bounded, and an end that is not to be given
//! descriptors never takes any.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// Longest body of a frame, in bytes.
pub(super) const FRAME_MAX_BYTES: usize = 16 << 20;
/// Bytes that may wait to be sent; a peer that takes no more is as good as gone.
const WAITING_MAX_BYTES: usize = 64 << 20;
/// Descriptors of one frame.
const DESCRIPTORS_MAX: u32 = 4;
/// Descriptors that may have arrived before their frame is whole.
const EARLY_MAX: usize = 64;
const HEAD_BYTES: usize = 8;
const READ_BYTES: usize = 32 << 10;
/// A buffer that one large frame made larger is given back.
const KEPT_BYTES: usize = 256 << 10;

/// A frame on its way out.
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptor: Option<OwnedFd>,
}

/// Both directions of a socket.
pub(super) struct Framed {
    /// Watched for what arrives only: who watches for room to write, too, is woken by each message that the other end reads.
    socket: AsyncFd<OwnedFd>,
    waiting: Mutex<(VecDeque<Outgoing>, usize)>,
    stuck: Notify,
    takes_descriptors: bool,
}

/// What was read so far; owned by the one that reads.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    room: Box<[u8]>,
    descriptors: VecDeque<OwnedFd>,
}

/// A frame that arrived.
pub(super) struct Incoming {
    pub(super) body: Vec<u8>,
    pub(super) descriptor: Option<OwnedFd>,
}

impl Framed {
    /// Over a connected stream socket; needs a running tokio.
    pub(super) fn new(socket: OwnedFd, takes_descriptors: bool) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let socket = watch(socket, Interest::READABLE)?;
        Ok(Self { socket, waiting: Mutex::default(), stuck: Notify::new(), takes_descriptors })
    }

    fn waiting(&self) -> MutexGuard<'_, (VecDeque<Outgoing>, usize)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame, or lets it wait for [`Framed::drain`].
    ///
    /// # Errors
    /// Where the other end is gone, or has let too much wait.
    pub(super) fn send(&self, body: &[u8], descriptor: Option<OwnedFd>) -> io::Result<()> {
        if body.len() > FRAME_MAX_BYTES {
            return Err(io::Error::other(format!("a message of {} bytes is longer than {FRAME_MAX_BYTES}", body.len())));
        }
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(&u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes());
        bytes.extend_from_slice(&u32::from(descriptor.is_some()).to_le_bytes());
        bytes.extend_from_slice(body);
        let mut waiting = self.waiting();
        if waiting.1 + bytes.len() > WAITING_MAX_BYTES {
            return Err(io::Error::other("the other end does not read what is sent to it"));
        }
        waiting.1 += bytes.len();
        waiting.0.push_back(Outgoing { bytes, sent: 0, descriptor });
        if waiting.0.len() == 1 && !self.push(&mut waiting)? {
            self.stuck.notify_one();
        }
        Ok(())
    }

    /// Sends what waits; `false` where the socket takes no more for now.
    fn push(&self, waiting: &mut (VecDeque<Outgoing>, usize)) -> io::Result<bool> {
        while let Some(first) = waiting.0.front_mut() {
            let rest = [IoSlice::new(&first.bytes[first.sent..])];
            let descriptors: Vec<BorrowedFd<'_>> = first.descriptor.iter().map(|fd| fd.as_fd()).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            match sendmsg(self.socket.get_ref(), &rest, &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => {
                    first.descriptor = None;
                    first.sent += sent;
                    if first.sent == first.bytes.len() {
                        waiting.1 -= first.bytes.len();
                        waiting.0.pop_front();
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Sends what the socket did not take at once, for as long as the other end is there.
    pub(super) async fn drain(&self) -> io::Result<()> {
        loop {
            self.stuck.notified().await;
            let room = watch(self.socket.get_ref().try_clone()?, Interest::WRITABLE)?;
            loop {
                let mut ready = room.writable().await?;
                // A socket that takes no more is said not to be ready, and waited for again.
                let pushed = ready
                    .try_io(|_| if self.push(&mut self.waiting())? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) });
                match pushed {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => return Err(error),
                    Err(_) => {}
                }
            }
        }
    }

    /// The next frame; `None` where the other end is gone.
    ///
    /// # Errors
    /// Where what arrives is no frame.
    pub(super) async fn receive(&self, inbox: &mut Inbox) -> io::Result<Option<Incoming>> {
        loop {
            if let Some(frame) = inbox.take()? {
                return Ok(Some(frame));
            }
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|_| self.read(inbox)) {
                Ok(Ok(0)) => return Ok(None),
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    fn read(&self, inbox: &mut Inbox) -> io::Result<usize> {
        let got = self.read_into(&mut inbox.room, &mut inbox.descriptors)?;
        inbox.bytes.extend_from_slice(&inbox.room[..got]);
        Ok(got)
    }

    fn read_into(&self, room: &mut [u8], descriptors: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
        if !self.takes_descriptors {
            // Without room for them, the kernel throws away whatever comes along.
            return Ok(rustix::net::recv(self.socket.get_ref(), room, RecvFlags::DONTWAIT)?.0);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX as usize))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(self.socket.get_ref(), &mut [IoSliceMut::new(room)], &mut control, flags)?;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(arrived) = part {
                descriptors.extend(arrived);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > EARLY_MAX {
            return Err(io::Error::other("too many descriptors at once"));
        }
        Ok(message.bytes)
    }
}

#[expect(deprecated, reason = "unsound only for types whose descriptor may become another: an owned one stays what it is")]
fn watch(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, interest)
}

impl Default for Inbox {
    fn default() -> Self {
        let room = vec![0; READ_BYTES].into_boxed_slice();
        Self { bytes: Vec::new(), start: 0, room, descriptors: VecDeque::new() }
    }
}

impl Inbox {
    /// Takes a whole frame out of what was read.
    fn take(&mut self) -> io::Result<Option<Incoming>> {
        let unread = &self.bytes[self.start..];
        let Some((head, rest)) = unread.split_first_chunk::<HEAD_BYTES>() else {
            self.tidy();
            return Ok(None);
        };
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = number(0) as usize;
        if length > FRAME_MAX_BYTES || number(4) > 1 {
            return Err(io::Error::other(format!("a frame of {length} bytes with {} descriptors", number(4))));
        }
        let Some(body) = rest.get(..length) else {
            self.tidy();
            return Ok(None);
        };
        let body = body.to_vec();
        let descriptor = if number(4) == 1 {
            Some(self.descriptors.pop_front().ok_or_else(|| io::Error::other("a frame without its descriptor"))?)
        } else {
            None
        };
        self.start += HEAD_BYTES + length;
        Ok(Some(Incoming { body, descriptor }))
    }

    /// Moves the beginning of the next frame to the front.
    fn tidy(&mut self) {
        self.bytes.drain(..self.start);
        self.start = 0;
        if self.bytes.len() < READ_BYTES && self.bytes.capacity() > KEPT_BYTES {
            self.bytes.shrink_to(READ_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair(takes: bool) -> (Framed, Framed) {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        (Framed::new(a, false).unwrap(), Framed::new(b, takes).unwrap())
    }

    #[tokio::test]
    async fn frames_arrive_whole_and_in_order_with_their_descriptors() {
        let (a, b) = pair(true);
        let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let sizes = [0, 1, 100_000, 5, 3_000_000];
        let sending = async {
            for (at, size) in sizes.iter().enumerate() {
                a.send(&vec![u8::try_from(at).unwrap(); *size], (at % 2 == 0).then(file)).unwrap();
            }
            a.drain().await.unwrap();
        };
        let receiving = async {
            let mut inbox = Inbox::default();
            for (at, size) in sizes.iter().enumerate() {
                let frame = b.receive(&mut inbox).await.unwrap().unwrap();
                assert_eq!(frame.body, vec![u8::try_from(at).unwrap(); *size]);
                assert_eq!(frame.descriptor.is_some(), at % 2 == 0, "{at}");
            }
        };
        tokio::select! { () = sending => panic!("it drains for ever"), () = receiving => {} }
        drop(a);
        assert!(b.receive(&mut Inbox::default()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn lies_about_lengths_and_descriptors_are_errors() {
        for head in [[0xff; 8], [1, 0, 0, 0, 2, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0]] {
            let (a, b) = pair(true);
            rustix::io::write(a.socket.get_ref(), &head).unwrap();
            assert!(b.receive(&mut Inbox::default()).await.is_err(), "{head:?}");
        }
    }

    #[tokio::test]
    async fn an_end_that_takes_no_descriptors_gets_none() {
        let (a, b) = pair(false);
        a.send(b"x", Some(std::fs::File::open("/dev/null").unwrap().into())).unwrap();
        assert!(b.receive(&mut Inbox::default()).await.is_err());
    }

    #[tokio::test]
    async fn what_nobody_reads_is_bounded() {
        let (a, _b) = pair(false);
        let body = vec![0; FRAME_MAX_BYTES];
        let sent = (0..10).take_while(|_| a.send(&body, None).is_ok()).count();
        assert!((3..=4).contains(&sent), "{sent}");
    }

    /// Everything that an inbox makes of bytes that arrive in pieces.
    fn taken(bytes: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, bool) {
        let (mut inbox, mut bodies, mut from) = (Inbox::default(), Vec::new(), 0);
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let to = cut.clamp(from, bytes.len());
            inbox.bytes.extend_from_slice(&bytes[from..to]);
            from = to;
            loop {
                match inbox.take() {
                    Ok(Some(frame)) => bodies.push(frame.body),
                    Ok(None) => break,
                    Err(_) => return (bodies, false),
                }
            }
        }
        (bodies, true)
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_they_are_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..8),
            mut cuts in prop::collection::vec(0_usize..900, 0..30),
        ) {
            cuts.sort_unstable();
            let framed = |body: &Vec<u8>| {
                let length = u32::try_from(body.len()).unwrap().to_le_bytes();
                [&length[..], &[0; 4], body].concat()
            };
            let bytes: Vec<u8> = bodies.iter().flat_map(framed).collect();
            prop_assert_eq!(taken(&bytes, &cuts), (bodies, true));
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(
            heads in prop::collection::vec((prop_oneof![0_u32..40, any::<u32>()], prop_oneof![0_u32..3, any::<u32>()]), 0..6),
            filling in prop::collection::vec(any::<u8>(), 0..60),
            mut cuts in prop::collection::vec(0_usize..300, 0..10),
        ) {
            cuts.sort_unstable();
            let head = |(length, count): &(u32, u32)| [&length.to_le_bytes()[..], &count.to_le_bytes(), &filling].concat();
            let bytes: Vec<u8> = heads.iter().flat_map(head).collect();
            let (bodies, _) = taken(&bytes, &cuts);
            prop_assert!(bodies.iter().map(|body| body.len() + HEAD_BYTES).sum::<usize>() <= bytes.len());
        }
    }
}
