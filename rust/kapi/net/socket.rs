// SPDX-License-Identifier: GPL-2.0-only

//! A TCP connection that never waits: whoever owns it is woken when there is something to do.
//!
//! It is set up as `nbd` and `nvme-tcp` do for a disk that memory may have to be written to: allocations under
//! `GFP_NOIO`, no page fragments of the current task, and packets that may use the reserves of memory.
//!
//! C headers: [`include/linux/net.h`](srctree/include/linux/net.h),
//! [`include/net/sock.h`](srctree/include/net/sock.h)

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use super::Address;
use crate::{
    bindings,
    kapi::{
        errno::Errno,
        noio::{
            NoIo,
            NoReclaim, //
        },
        page::{
            PageBuf,
            PAGE_BYTES, //
        }, //
    }, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_ulong, //
    },
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// Who is told that a socket has data, room or news.
pub(crate) trait Wake: Send + Sync + 'static {
    /// Called from a softirq, with locks of the network held: queue work and return. It may come without a reason.
    fn wake(this: ArcBorrow<'_, Self>);
}

/// What a socket is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Waiting for the other side.
    Connecting,
    /// Data can go both ways.
    Established,
    /// Over, or about to be.
    Closed,
}

/// What receiving gave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes, more than zero.
    Bytes(usize),
    /// Nothing yet; the owner will be woken.
    Nothing,
    /// The other side has closed.
    End,
}

/// A connection, closed when dropped; dropping may sleep, but does not wait for the other side.
///
/// # Invariants
///
/// - `raw` is a valid TCP socket that nobody else releases.
/// - `callbacks` is installed in it, and its `context` is `Arc::as_ptr(&owner)`.
pub(crate) struct Socket<T: Wake> {
    raw: NonNull<bindings::socket>,
    callbacks: Pin<KBox<Callbacks>>,
    // Dropped after `drop()` has uninstalled the callbacks.
    _owner: Arc<T>,
}

/// Memory that the network points to.
#[pin_data]
struct Callbacks {
    #[pin]
    raw: kernel::types::Opaque<bindings::imgstream_socket_callbacks>,
}

// SAFETY: A socket is not bound to a thread, and the owner is `Send + Sync`.
unsafe impl<T: Wake> Send for Socket<T> {}
// SAFETY: All that is called through a shared reference takes the socket's own lock.
unsafe impl<T: Wake> Sync for Socket<T> {}

/// Releases a socket that did not become a [`Socket`].
struct Release(NonNull<bindings::socket>);

impl Drop for Release {
    fn drop(&mut self) {
        // SAFETY: Made by `sock_create_kern()`, and nobody else has it.
        unsafe { bindings::sock_release(self.0.as_ptr()) };
    }
}

impl<T: Wake> Socket<T> {
    /// Begins to connect to `address`; `owner` is woken when that has worked or failed. Process context.
    ///
    /// `owner` and the socket refer to each other until the socket is dropped.
    pub(crate) fn connect(address: Address, owner: Arc<T>) -> Result<Self> {
        let _no_io = NoIo::enter();
        let raw = create(address)?;
        // SAFETY: `raw` is a new TCP socket, and handed over.
        let this = unsafe { Self::install(raw, owner)? };
        // SAFETY: `raw` was made for the family of `address`.
        match unsafe { address.connect(raw.as_ptr()) } {
            Err(error) if Errno::from_error(error) != Some(Errno::InProgress) => Err(error),
            _ => Ok(this),
        }
    }

    /// # Safety
    ///
    /// Hands over a valid TCP socket whose callbacks nobody has changed.
    unsafe fn install(raw: NonNull<bindings::socket>, owner: Arc<T>) -> Result<Self> {
        let release = Release(raw);
        let callbacks = Self::callbacks(&owner)?;
        // SAFETY: A valid TCP socket by this function's requirement; `callbacks` is initialised and pinned.
        unsafe { bindings::imgstream_socket_install(raw.as_ptr(), callbacks.raw.get()) };
        core::mem::forget(release);
        // INVARIANT: Installed just now, with `owner` as the context.
        Ok(Self {
            raw,
            callbacks,
            _owner: owner,
        })
    }

    fn callbacks(owner: &Arc<T>) -> Result<Pin<KBox<Callbacks>>> {
        let raw = bindings::imgstream_socket_callbacks {
            wake: Some(Self::wake_owner),
            context: Arc::as_ptr(owner).cast_mut().cast(),
            ..Default::default()
        };
        let init = pin_init!(Callbacks {
            raw <- kernel::types::Opaque::ffi_init(move |slot: *mut bindings::imgstream_socket_callbacks| {
                // SAFETY: `slot` is memory for the structure.
                unsafe { slot.write(raw) }
            }),
        });
        KBox::pin_init(init, GFP_KERNEL)
    }

    /// # Safety
    ///
    /// `context` must be `Arc::as_ptr()` of a live `Arc<T>`.
    unsafe extern "C" fn wake_owner(context: *mut c_void) {
        // SAFETY: By this function's requirement: the socket has an `Arc` until the callbacks are uninstalled, and that
        // waits for those that run.
        T::wake(unsafe { ArcBorrow::from_raw(context.cast::<T>()) });
    }

    /// What it is doing.
    pub(crate) fn state(&self) -> State {
        // SAFETY: The socket is valid by the type invariant.
        match unsafe { bindings::imgstream_socket_state(self.raw.as_ptr()) } {
            0 => State::Connecting,
            1 => State::Established,
            _ => State::Closed,
        }
    }

    /// Why it is closed, once: reading the error clears it.
    pub(crate) fn take_error(&self) -> Result {
        // SAFETY: The socket is valid by the type invariant.
        to_result(unsafe { bindings::imgstream_socket_error(self.raw.as_ptr()) })
    }

    /// Sends the beginning of `data` and returns how much; 0 if there is no room: the owner will be woken.
    pub(crate) fn send(&self, data: &[u8]) -> Result<usize> {
        // As nbd does: what is sent here may be what frees memory.
        let _reserves = NoReclaim::enter();
        let mut part = bindings::kvec {
            iov_base: data.as_ptr().cast_mut().cast(),
            iov_len: data.len(),
        };
        let mut message = message();
        // SAFETY: The socket is valid by the type invariant; `data` is only read, and copied before the call returns.
        let sent = unsafe {
            bindings::kernel_sendmsg(self.raw.as_ptr(), &mut message, &mut part, 1, data.len())
        };
        match length(sent)? {
            Some(sent) => Ok(sent),
            None => Ok(0),
        }
    }

    /// Receives into `buffer`, which must not be empty.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<Received> {
        let mut part = bindings::kvec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        let mut message = message();
        // SAFETY: The socket is valid by the type invariant; `buffer` is writable for its length.
        let got = unsafe {
            bindings::kernel_recvmsg(
                self.raw.as_ptr(),
                &mut message,
                &mut part,
                1,
                buffer.len(),
                bindings::MSG_DONTWAIT as c_int,
            )
        };
        received(got)
    }

    /// Receives up to `len` bytes into `buf`, from its byte `offset` on. At most 32 pages at a time.
    pub(crate) fn receive_pages(
        &self,
        buf: &PageBuf,
        offset: usize,
        len: usize,
    ) -> Result<Received> {
        let mut parts = [bindings::bio_vec::default(); 32];
        let (count, total) = fill_parts(&mut parts, buf, offset, len);
        if total == 0 {
            return Err(EINVAL);
        }
        let mut message = message();
        // SAFETY: The first `count` parts are inside of pages that `buf` keeps alive, `total` bytes in sum.
        unsafe {
            bindings::iov_iter_bvec(
                &mut message.msg_iter,
                bindings::ITER_DEST,
                parts.as_ptr(),
                count as c_ulong,
                total,
            )
        };
        // SAFETY: The socket is valid by the type invariant, the iterator was set up above.
        let got = unsafe {
            bindings::sock_recvmsg(
                self.raw.as_ptr(),
                &mut message,
                bindings::MSG_DONTWAIT as c_int,
            )
        };
        received(got)
    }
}

impl<T: Wake> Drop for Socket<T> {
    fn drop(&mut self) {
        let raw = self.raw.as_ptr();
        // The order: nobody is woken any more, nothing moves any more, then the socket goes. Work that was queued by
        // the last wake-up holds its own reference to the owner and finds no socket there.
        // SAFETY: The socket is valid and the callbacks are installed, by the type invariants.
        unsafe { bindings::imgstream_socket_uninstall(raw, self.callbacks.raw.get()) };
        // SAFETY: The socket is valid by the type invariant.
        unsafe { bindings::kernel_sock_shutdown(raw, bindings::sock_shutdown_cmd_SHUT_RDWR) };
        // SAFETY: As above, and nobody uses it after us.
        unsafe { bindings::sock_release(raw) };
    }
}

/// A socket for `address` in the first network namespace, set up for a disk's traffic.
fn create(address: Address) -> Result<NonNull<bindings::socket>> {
    let mut raw = ptr::null_mut();
    // SAFETY: `init_net` lives for ever; `raw` is written on success.
    to_result(unsafe {
        bindings::sock_create_kern(
            &raw mut bindings::init_net,
            address.family(),
            bindings::sock_type_SOCK_STREAM as c_int,
            bindings::IPPROTO_TCP,
            &mut raw,
        )
    })?;
    let socket = NonNull::new(raw).ok_or(ENOMEM)?;
    // SAFETY: `raw` is a new TCP socket.
    unsafe { bindings::imgstream_socket_prepare(raw) };
    Ok(socket)
}

/// A message header that says: do not wait, and no signal.
fn message() -> bindings::msghdr {
    bindings::msghdr {
        msg_flags: bindings::MSG_DONTWAIT | bindings::MSG_NOSIGNAL,
        ..Default::default()
    }
}

/// Fills in `parts` with up to `len` bytes of `buf` from `offset` on; returns how many parts and bytes.
fn fill_parts(
    parts: &mut [bindings::bio_vec],
    buf: &PageBuf,
    offset: usize,
    len: usize,
) -> (usize, usize) {
    let mut within = offset % PAGE_BYTES;
    let mut total = 0;
    let mut count: usize = 0;
    for (part, page) in parts
        .iter_mut()
        .zip(buf.pages().iter().skip(offset / PAGE_BYTES))
    {
        let bytes = (PAGE_BYTES - within).min(len.saturating_sub(total));
        if bytes == 0 {
            break;
        }
        *part = bindings::bio_vec {
            bv_page: page.as_ptr(),
            bv_len: bytes as u32,
            bv_offset: within as u32,
        };
        within = 0;
        total = total.saturating_add(bytes);
        count = count.saturating_add(1);
    }
    (count, total)
}

/// A return value of the network: bytes, or `None` for "not now".
fn length(returned: c_int) -> Result<Option<usize>> {
    if returned == -(bindings::EAGAIN as c_int) {
        return Ok(None);
    }
    to_result(returned)?;
    Ok(usize::try_from(returned).ok())
}

fn received(returned: c_int) -> Result<Received> {
    Ok(match length(returned)? {
        Some(0) => Received::End,
        Some(bytes) => Received::Bytes(bytes),
        None => Received::Nothing,
    })
}
