// SPDX-License-Identifier: GPL-2.0-only

//! How the target ends a connection, seen from a socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use imgstream_proto::iscsi::bhs::{opcode, LoginRequest};
use imgstream_testtarget::{Damage, Fault, Phase, Plan, Server, Target};

/// A target whose first answer is damaged.
fn serve(damage: Damage) -> Server {
    let plan = Plan::once(0, Fault::Wire(Phase::Login, damage));
    let target = Target::new(Arc::new(vec![0u8; 4096])).plan(plan);
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    Server::start(target, address).unwrap()
}

/// What comes of the first answer, and how it ends.
fn first_answer(server: &Server) -> (Vec<u8>, Result<TcpStream, ErrorKind>) {
    let mut socket = TcpStream::connect(server.address()).unwrap();
    let request = LoginRequest {
        opcode: opcode::LOGIN_REQUEST | opcode::IMMEDIATE,
        ..LoginRequest::default()
    };
    socket.write_all(&request.encode()).unwrap();
    let mut bytes = Vec::new();
    let end = socket.read_to_end(&mut bytes).map_err(|e| e.kind());
    (bytes, end.map(|_| socket))
}

#[test]
fn a_connection_is_closed_or_reset_at_a_byte() {
    for at in [0, 1, 47, 48] {
        let (bytes, end) = first_answer(&serve(Damage::Close(at)));
        assert!(end.is_ok());
        assert_eq!(bytes.len(), at);
        let (_, end) = first_answer(&serve(Damage::Reset(at)));
        assert_eq!(end.err(), Some(ErrorKind::ConnectionReset), "at {at}");
    }
}

#[test]
fn a_connection_that_is_half_closed_still_takes_bytes() {
    let server = serve(Damage::HalfClose(10));
    let (bytes, end) = first_answer(&server);
    assert_eq!(bytes.len(), 10);
    let mut socket = end.unwrap();
    // Far more than any buffer holds, so somebody reads it.
    for _ in 0..256 {
        socket.write_all(&[0; 65_536]).unwrap();
    }
    socket.shutdown(Shutdown::Write).unwrap();
}
