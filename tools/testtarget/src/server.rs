// SPDX-License-Identifier: GPL-2.0-only

//! The target behind a listening socket: one thread for each connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::{Connection, Target};

/// Bytes received, and sent, at a time.
const CHUNK_BYTES: usize = 256 << 10;

struct Shared {
    target: Mutex<Target>,
    stopped: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
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
        for socket in lock(&self.shared.sockets).drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
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
        if let Ok(clone) = socket.try_clone() {
            lock(&shared.sockets).push(clone);
        }
        let connection = lock(&shared.target).accept();
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
        connection.feed(&mut lock(&shared.target), &buffer[..bytes]);
        loop {
            let out = connection.take_out(CHUNK_BYTES);
            if out.is_empty() {
                break;
            }
            if socket.write_all(&out).is_err() {
                return;
            }
        }
    }
    let _ = socket.shutdown(Shutdown::Both);
}
