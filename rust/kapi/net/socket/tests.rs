// SPDX-License-Identifier: GPL-2.0-only

//! Tests of sockets, with both ends here.

use kernel::prelude::*;

#[kunit_tests(imgstream_socket)]
mod suite {
    use super::super::*;
    use crate::kapi::{
        page::PagePool,
        testing::{
            every,
            until,
            watched,
            Watch,
            Watched,
            HANG_MS, //
        }, //
    };
    use core::{
        mem::ManuallyDrop,
        net::{
            IpAddr,
            Ipv4Addr,
            Ipv6Addr,
            SocketAddr, //
        },
        sync::atomic::{
            AtomicU32,
            Ordering, //
        }, //
    };
    use kernel::time::{
        delay::fsleep,
        Delta, //
    };

    const LOOPBACK: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];

    /// Counts how often it is woken.
    struct Owner {
        wakes: AtomicU32,
        _watched: Watched,
    }

    impl Wake for Owner {
        fn wake(this: ArcBorrow<'_, Self>) {
            this.wakes.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Owner {
        fn new() -> Result<(Arc<Self>, Watch)> {
            let (watched, watch) = watched()?;
            let owner = Self {
                wakes: AtomicU32::new(0),
                _watched: watched,
            };
            Ok((Arc::new(owner, GFP_KERNEL)?, watch))
        }

        fn wakes(&self) -> u32 {
            self.wakes.load(Ordering::SeqCst)
        }

        /// Whether `event` wakes it.
        fn is_woken_by(&self, event: impl FnOnce() -> Result) -> Result<bool> {
            let before = self.wakes();
            event()?;
            Ok(until(|| self.wakes() > before))
        }
    }

    /// Accepts connections to [`Listener::address`].
    struct Listener(Release);

    impl Listener {
        fn new(ip: IpAddr) -> Result<Self> {
            let address = Address(SocketAddr::new(ip, 0));
            let this = Self(Release(create(address)?));
            // SAFETY: A new socket of that family.
            unsafe { address.bind(this.raw())? };
            // SAFETY: As above, and bound.
            to_result(unsafe { bindings::kernel_listen(this.raw(), 8) })?;
            Ok(this)
        }

        fn raw(&self) -> *mut bindings::socket {
            self.0 .0.as_ptr()
        }

        /// Where it listens.
        fn address(&self, ip: IpAddr) -> Result<Address> {
            let mut name = bindings::sockaddr_in6::default();
            let place = ptr::from_mut(&mut name).cast();
            // SAFETY: The socket is valid; `name` has room for an address of either family.
            let len = unsafe { bindings::kernel_getsockname(self.raw(), place) };
            if len < 0 {
                return Err(Error::from_errno(len));
            }
            // The port stands at the same place in both.
            Ok(Address(SocketAddr::new(ip, u16::from_be(name.sin6_port))))
        }

        /// The other end of a connection that is established. Dropped as it is it resets the connection.
        fn accept(&self) -> Result<Release> {
            let mut raw = ptr::null_mut();
            // SAFETY: The socket listens; `raw` is written on success.
            to_result(unsafe { bindings::kernel_accept(self.raw(), &mut raw, 0) })?;
            Ok(Release(NonNull::new(raw).ok_or(ENOMEM)?))
        }
    }

    /// An end of a connection.
    struct End {
        socket: Socket<Owner>,
        owner: Arc<Owner>,
        gone: Watch,
    }

    /// A connection from here to here.
    fn connected(ip: IpAddr) -> Result<(End, Release)> {
        let listener = Listener::new(ip)?;
        let (owner, gone) = Owner::new()?;
        let socket = Socket::connect(listener.address(ip)?, owner.clone())?;
        if !until(|| socket.state() == State::Established && owner.wakes() > 0) {
            return Err(EAGAIN);
        }
        let ours = End {
            socket,
            owner,
            gone,
        };
        Ok((ours, listener.accept()?))
    }

    fn pair_over(ip: IpAddr) -> Result<(End, End)> {
        let (ours, theirs) = connected(ip)?;
        let (owner, gone) = Owner::new()?;
        let raw = ManuallyDrop::new(theirs).0;
        // SAFETY: A new TCP socket, handed over.
        let socket = unsafe { Socket::install(raw, owner.clone())? };
        let theirs = End {
            socket,
            owner,
            gone,
        };
        Ok((ours, theirs))
    }

    fn pair() -> Result<(End, End)> {
        pair_over(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    impl End {
        fn send(&self, data: &[u8]) -> Result {
            match self.socket.send(data)? == data.len() {
                true => Ok(()),
                false => Err(EAGAIN),
            }
        }

        /// No more comes from this end, but it still receives.
        fn finish(&self) -> Result {
            let how = bindings::sock_shutdown_cmd_SHUT_WR;
            // SAFETY: A valid socket by the type invariant.
            to_result(unsafe { bindings::kernel_sock_shutdown(self.socket.raw.as_ptr(), how) })
        }

        /// Receives at most `len` bytes; how many, and what.
        fn receive(&self, len: usize) -> Result<(Received, [u8; 16])> {
            let mut bytes = [0; 16];
            let room = bytes.get_mut(..len).ok_or(EINVAL)?;
            Ok((self.socket.receive(room)?, bytes))
        }

        fn is_nothing(&self) -> bool {
            self.receive(1)
                .is_ok_and(|(got, _)| got == Received::Nothing)
        }

        fn is_end(&self) -> bool {
            self.receive(1).is_ok_and(|(got, _)| got == Received::End)
        }
    }

    /// The error, if it is one of the network's.
    fn errno<T>(result: Result<T>) -> Option<Errno> {
        Errno::from_error(result.err()?)
    }

    #[test]
    fn data_goes_both_ways_over_both_families() {
        assert!(every(LOOPBACK, |&ip| works_over(ip).is_ok_and(|works| works)));
    }

    fn works_over(ip: IpAddr) -> Result<bool> {
        let (ours, theirs) = pair_over(ip)?;
        let quiet = ours.is_nothing() && theirs.is_nothing();
        let woken = theirs.owner.is_woken_by(|| ours.send(b"there"))?
            && ours.owner.is_woken_by(|| theirs.send(b"back"))?;
        let (there, back) = (theirs.receive(16)?, ours.receive(16)?);
        let right = there.0 == Received::Bytes(5)
            && there.1.starts_with(b"there\0")
            && back.0 == Received::Bytes(4)
            && back.1.starts_with(b"back\0");
        Ok(quiet && woken && right && ours.socket.take_error().is_ok())
    }

    #[test]
    fn a_refusal_wakes_and_is_said_once() {
        assert!(every(LOOPBACK, |&ip| refused_by(ip).is_ok_and(|right| right)));
    }

    fn refused_by(ip: IpAddr) -> Result<bool> {
        let (owner, _) = Owner::new()?;
        // Nobody listens there.
        let socket = Socket::connect(Address(SocketAddr::new(ip, 1)), owner.clone())?;
        let closed = until(|| socket.state() == State::Closed && owner.wakes() > 0);
        let refused = errno(socket.take_error()) == Some(Errno::ConnectionRefused);
        Ok(closed && refused && socket.take_error().is_ok())
    }

    #[test]
    fn what_has_come_is_received_in_parts() -> Result {
        let (ours, theirs) = pair()?;
        assert!(ours.owner.is_woken_by(|| theirs.send(b"0123456789"))?);
        // Room, and what comes.
        let table: [(usize, &[u8]); 4] = [(1, b"0"), (4, b"1234"), (3, b"567"), (16, b"89")];
        assert!(every(table, |&(room, bytes)| {
            ours.receive(room).is_ok_and(|(got, found)| {
                got == Received::Bytes(bytes.len()) && found.starts_with(bytes)
            })
        }));
        assert!(ours.is_nothing());
        Ok(())
    }

    #[test]
    fn the_end_comes_behind_the_data_and_stays() -> Result {
        let (ours, theirs) = pair()?;
        theirs.send(b"last")?;
        assert!(ours.owner.is_woken_by(|| theirs.finish())?);
        assert!(ours.receive(16)?.0 == Received::Bytes(4));
        assert!(until(|| ours.is_end()) && ours.is_end());
        assert!(ours.socket.state() == State::Established);
        // They still listen.
        assert!(theirs.owner.is_woken_by(|| ours.send(b"heard"))?);
        assert!(theirs.receive(16)?.0 == Received::Bytes(5));
        Ok(())
    }

    #[test]
    fn who_waits_is_woken_when_the_other_side_is_dropped() -> Result {
        let (ours, theirs) = pair()?;
        let End { socket, .. } = theirs;
        assert!(ours.owner.is_woken_by(|| {
            drop(socket);
            Ok(())
        })?);
        assert!(until(|| ours.socket.state() == State::Closed) && ours.is_end());
        assert_eq!(ours.send(b"hello"), Err(EPIPE));
        Ok(())
    }

    #[test]
    fn a_reset_wakes_and_is_said_once() -> Result {
        let reset: [fn(&End) -> Result; 3] = [
            |end| end.send(b"hello"),
            |end| end.receive(1).map(|_| ()),
            |end| end.socket.take_error(),
        ];
        for said in reset {
            let (ours, theirs) = connected(LOOPBACK[0])?;
            assert!(ours.owner.is_woken_by(|| {
                drop(theirs);
                Ok(())
            })?);
            assert!(until(|| ours.socket.state() == State::Closed));
            assert!(errno(said(&ours)) == Some(Errno::ConnectionReset));
            assert!(ours.is_end() && ours.socket.take_error().is_ok());
            assert_eq!(ours.send(b"hello"), Err(EPIPE));
        }
        Ok(())
    }

    #[test]
    fn who_has_dropped_it_is_not_woken_any_more() -> Result {
        let (ours, theirs) = pair()?;
        let End {
            socket,
            owner,
            gone,
        } = ours;
        assert!(theirs.owner.is_woken_by(|| {
            drop(socket);
            Ok(())
        })?);
        let wakes = owner.wakes();
        drop(theirs);
        assert!(owner.wakes() == wakes && !gone.is_gone());
        drop(owner);
        assert!(gone.is_gone());
        Ok(())
    }

    #[test]
    fn an_attempt_can_be_given_up_at_any_time() -> Result {
        let listener = Listener::new(LOOPBACK[0])?;
        let nowhere = Address(SocketAddr::new(LOOPBACK[0], 1));
        for address in [listener.address(LOOPBACK[0])?, nowhere] {
            let (owner, gone) = Owner::new()?;
            drop(Socket::connect(address, owner)?);
            assert!(gone.is_gone());
        }
        Ok(())
    }

    /// Receives what comes, and waits for it.
    fn soon(mut receive: impl FnMut() -> Result<Received>) -> Result<usize> {
        for _ in 0..HANG_MS {
            match receive()? {
                Received::Bytes(bytes) => return Ok(bytes),
                Received::Nothing => fsleep(Delta::from_millis(1)),
                Received::End => return Err(EIO),
            }
        }
        Err(EAGAIN)
    }

    /// The byte at that place of a long text.
    fn byte(at: usize) -> u8 {
        (at % 251) as u8
    }

    fn text(from: usize, len: usize) -> Result<KVec<u8>> {
        let mut text = KVec::with_capacity(len, GFP_KERNEL)?;
        for at in from..from + len {
            text.push(byte(at), GFP_KERNEL)?;
        }
        Ok(text)
    }

    #[test]
    fn a_full_socket_says_so_and_wakes_when_there_is_room() -> Result {
        let (ours, theirs) = pair()?;
        let mut sent = 0;
        loop {
            match ours.socket.send(&text(sent, 32 << 10)?)? {
                0 => break,
                bytes => sent += bytes,
            }
        }
        let mut received = 0;
        let mut room = KVec::from_elem(0, 32 << 10, GFP_KERNEL)?;
        let woken = ours.owner.is_woken_by(|| {
            while received < sent {
                let bytes = soon(|| theirs.socket.receive(&mut room))?;
                let same = room
                    .iter()
                    .take(bytes)
                    .copied()
                    .eq((received..).map(byte).take(bytes));
                if !same {
                    return Err(EINVAL);
                }
                received += bytes;
            }
            Ok(())
        })?;
        assert!(woken && received == sent && theirs.is_nothing());
        assert!(ours.send(b"room").is_ok());
        Ok(())
    }

    #[test]
    fn pages_are_filled_from_their_place_on() {
        let page = PAGE_BYTES;
        // Where, how much there is room for, and how much comes of three pages that are sent.
        let table = [
            (0, 1, 1),
            (0, 3 * page, 3 * page),
            (1, page, page),
            (page - 1, 2, 2),
            (page, page, page),
            (2 * page + 7, 100, 100),
            // The buffer has four pages.
            (3 * page, 2 * page, page),
            (4 * page - 1, page, 1),
        ];
        assert!(every(table, |&(offset, room, bytes)| {
            filled(4, offset, room, bytes) == Ok(true)
        }));
    }

    /// Whether `bytes` come into a buffer of so many pages from `offset` on, if there is room for so many, and nothing else
    /// is changed.
    fn filled(pages: usize, offset: usize, room: usize, bytes: usize) -> Result<bool> {
        let (ours, theirs) = pair()?;
        let buf = PageBuf::new(&PagePool::with_longest(pages, pages)?, pages)?;
        buf.fill_zero(0, buf.len())?;
        theirs.send(&text(1, 3 * PAGE_BYTES)?)?;
        let mut got = 0;
        while got < bytes {
            got += soon(|| ours.socket.receive_pages(&buf, offset + got, room - got))?;
        }
        let mut found = KVec::from_elem(0xee, buf.len(), GFP_KERNEL)?;
        buf.copy_to_slice(0, &mut found)?;
        let expected = |at: usize| match at.checked_sub(offset) {
            Some(within) if within < bytes => byte(1 + within),
            _ => 0,
        };
        let right = found
            .iter()
            .zip(0..)
            .all(|(&byte, at)| byte == expected(at));
        Ok(right && got == bytes)
    }

    #[test]
    fn no_room_is_no_end() -> Result {
        let (ours, theirs) = pair()?;
        let buf = PageBuf::new(&PagePool::new(2)?, 2)?;
        theirs.send(b"waits")?;
        let table = [(0, 0), (2 * PAGE_BYTES, 1), (usize::MAX, 1)];
        assert!(every(table, |&(offset, len)| {
            let got = ours.socket.receive_pages(&buf, offset, len);
            got.err() == Some(EINVAL)
        }));
        Ok(())
    }

    #[test]
    fn parts_are_those_of_the_pages_up_to_32() -> Result {
        let page = PAGE_BYTES;
        let buf = PageBuf::new(&PagePool::with_longest(40, 40)?, 40)?;
        // Where and how much, and how many parts and bytes that gives.
        let table = [
            (0, 1, (1, 1)),
            (0, page, (1, page)),
            (1, page, (2, page)),
            (page - 1, 2, (2, 2)),
            (0, 32 * page, (32, 32 * page)),
            (0, 33 * page, (32, 32 * page)),
            (1, 32 * page, (32, 32 * page - 1)),
            (39 * page + 5, page, (1, page - 5)),
            (40 * page, 1, (0, 0)),
            (3, 0, (0, 0)),
            (0, usize::MAX, (32, 32 * page)),
        ];
        assert!(every(table, |&(offset, len, expected)| {
            let mut parts = [bindings::bio_vec::default(); 32];
            let filled = fill_parts(&mut parts, &buf, offset, len);
            let mut pages = buf.pages().iter().skip(offset / page);
            let used = parts.iter().take(filled.0);
            let right = used.clone().all(|part| {
                let end = part.bv_offset + part.bv_len;
                end as usize <= page
                    && pages
                        .next()
                        .is_some_and(|page| page.as_ptr() == part.bv_page)
            });
            right && filled == expected
        }));
        Ok(())
    }
}
