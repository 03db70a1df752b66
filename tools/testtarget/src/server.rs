// SPDX-License-Identifier: GPL-2.0-only

//! The target behind a listening socket: one thread for each connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use crate::{Connection, Ending, Target};

/// Bytes received, and sent, at a time.
const CHUNK_BYTES: usize = 256 << 10;

struct Shared {
    target: Mutex<Target>,
    stopped: AtomicBool,
    /// Those that are open; each belongs to its thread, so that it is closed when that ends.
    sockets: Mutex<Vec<(u32, Weak<TcpStream>)>>,
}

impl Shared {
    /// Ends connections, by their numbers.
    fn disconnect(&self, which: impl Fn(u32) -> bool) {
        for (number, socket) in &*lock(&self.sockets) {
            if let Some(socket) = socket.upgrade().filter(|_| which(*number)) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

/// A target that listens.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `target` at `address`; port 0 picks a free one.
    pub fn start(target: Target, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            stopped: AtomicBool::new(false),
            sockets: Mutex::new(Vec::new()),
        });
        let of_listener = Arc::clone(&shared);
        let listener = std::thread::spawn(move || listen(&listener, &of_listener));
        Ok(Self {
            address,
            shared,
            listener: Some(listener),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The target; connections wait while the guard is held.
    pub fn target(&self) -> MutexGuard<'_, Target> {
        lock(&self.shared.target)
    }

    /// Ends all connections; new ones are taken.
    pub fn disconnect_all(&self) {
        self.shared.disconnect(|_| true);
    }

    /// Waits until the listener ends, which it only does when it is stopped.
    pub fn join(mut self) {
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.disconnect_all();
        // Wakes the listener, which then sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(socket) = socket else { continue };
        let _ = socket.set_nodelay(true);
        let socket = Arc::new(socket);
        let connection = lock(&shared.target).accept();
        let mut sockets = lock(&shared.sockets);
        sockets.retain(|(_, socket)| socket.strong_count() != 0);
        sockets.push((connection.number(), Arc::downgrade(&socket)));
        drop(sockets);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || serve(&socket, connection, &shared));
    }
}

fn serve(mut socket: &TcpStream, mut connection: Connection, shared: &Shared) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while !connection.is_over() {
        let bytes = match socket.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => bytes,
        };
        let displaced = {
            let mut target = lock(&shared.target);
            connection.feed(&mut target, &buffer[..bytes]);
            target.take_displaced()
        };
        shared.disconnect(|number| displaced.contains(&number));
        if send(socket, &mut connection, shared).is_err() {
            return;
        }
    }
    end(socket, connection.ending());
}

/// Sends what there is, at the pace that the connection has.
fn send(mut socket: &TcpStream, connection: &mut Connection, shared: &Shared) -> io::Result<()> {
    loop {
        let out = connection.take_out(CHUNK_BYTES);
        if out.is_empty() {
            return Ok(());
        }
        socket.write_all(&out)?;
        if shared.stopped.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        std::thread::sleep(Duration::from_millis(connection.pause_ms()));
    }
}

fn end(mut socket: &TcpStream, ending: Ending) {
    match ending {
        // Closing a socket that lingers for no time resets the connection.
        Ending::Reset => {
            let _ = set_socket_linger(socket, Some(Duration::ZERO));
        }
        Ending::Half => {
            let _ = socket.shutdown(Shutdown::Write);
            let _ = io::copy(&mut socket, &mut io::sink());
        }
        Ending::Open | Ending::Close | Ending::Stall => {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}
