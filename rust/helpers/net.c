// SPDX-License-Identifier: GPL-2.0-only
/* struct sock and its callbacks, which Rust cannot see. Imitates drivers/nvme/host/tcp.c. */

#include <linux/net.h>
#include <linux/tcp.h>
#include <net/sock.h>
#include <net/tcp.h>
#include <net/tcp_states.h>

#include "net.h"

#ifdef CONFIG_DEBUG_LOCK_ALLOC
static struct lock_class_key imgstream_lock_keys[2];
static struct lock_class_key imgstream_slock_keys[2];

/*
 * Our sockets are used while I/O is waited for, those of user space do I/O themselves (page
 * faults under the socket lock): to lockdep they must not be the same.
 */
static void imgstream_reclassify(struct sock *sk)
{
	if (!sock_allow_reclassification(sk))
		return;
	if (sk->sk_family == AF_INET)
		sock_lock_init_class_and_name(sk, "slock-AF_INET-IMGSTREAM",
					      &imgstream_slock_keys[0],
					      "sk_lock-AF_INET-IMGSTREAM",
					      &imgstream_lock_keys[0]);
	else
		sock_lock_init_class_and_name(sk, "slock-AF_INET6-IMGSTREAM",
					      &imgstream_slock_keys[1],
					      "sk_lock-AF_INET6-IMGSTREAM",
					      &imgstream_lock_keys[1]);
}
#else
static void imgstream_reclassify(struct sock *sk)
{
}
#endif

void imgstream_socket_prepare(struct socket *sock)
{
	struct sock *sk = sock->sk;

	imgstream_reclassify(sk);
	tcp_sock_set_nodelay(sk);
	/* On close what was not sent yet goes too: it must not be sent when the network is back. */
	sock_no_linger(sk);
	sock_set_keepalive(sk);
	sk->sk_allocation = GFP_NOIO | __GFP_MEMALLOC;
	sk->sk_use_task_frag = false;
	sk_set_memalloc(sk);
}

static void imgstream_wake(struct sock *sk)
{
	struct imgstream_socket_callbacks *callbacks = sk->sk_user_data;

	if (callbacks)
		callbacks->wake(callbacks->context);
}

static void imgstream_data_ready(struct sock *sk)
{
	read_lock_bh(&sk->sk_callback_lock);
	imgstream_wake(sk);
	read_unlock_bh(&sk->sk_callback_lock);
}

static void imgstream_write_space(struct sock *sk)
{
	read_lock_bh(&sk->sk_callback_lock);
	if (sk_stream_is_writeable(sk)) {
		if (sk->sk_socket)
			clear_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
		imgstream_wake(sk);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

static void imgstream_state_change(struct sock *sk)
{
	struct imgstream_socket_callbacks *callbacks;
	void (*state_change)(struct sock *sk) = NULL;

	read_lock_bh(&sk->sk_callback_lock);
	callbacks = sk->sk_user_data;
	if (callbacks)
		state_change = callbacks->state_change;
	imgstream_wake(sk);
	read_unlock_bh(&sk->sk_callback_lock);
	if (state_change)
		state_change(sk);
}

void imgstream_socket_install(struct socket *sock,
			      struct imgstream_socket_callbacks *callbacks)
{
	struct sock *sk = sock->sk;

	write_lock_bh(&sk->sk_callback_lock);
	callbacks->data_ready = sk->sk_data_ready;
	callbacks->state_change = sk->sk_state_change;
	callbacks->write_space = sk->sk_write_space;
	sk->sk_user_data = callbacks;
	sk->sk_data_ready = imgstream_data_ready;
	sk->sk_state_change = imgstream_state_change;
	sk->sk_write_space = imgstream_write_space;
	write_unlock_bh(&sk->sk_callback_lock);
}

/*
 * After this no callback of ours finds its context: those that are under way hold the lock, those
 * that come later find none. TCP calls them with the socket's lock held, so one that read the
 * function pointer just before is through when the caller has released the socket, which takes
 * that lock.
 */
void imgstream_socket_uninstall(struct socket *sock,
				struct imgstream_socket_callbacks *callbacks)
{
	struct sock *sk = sock->sk;

	write_lock_bh(&sk->sk_callback_lock);
	sk->sk_user_data = NULL;
	sk->sk_data_ready = callbacks->data_ready;
	sk->sk_state_change = callbacks->state_change;
	sk->sk_write_space = callbacks->write_space;
	write_unlock_bh(&sk->sk_callback_lock);
}

/* 0: connecting, 1: established (or still readable), 2: closed. */
int imgstream_socket_state(struct socket *sock)
{
	switch (READ_ONCE(sock->sk->sk_state)) {
	case TCP_SYN_SENT:
	case TCP_SYN_RECV:
		return 0;
	case TCP_ESTABLISHED:
	case TCP_CLOSE_WAIT:
		return 1;
	default:
		return 2;
	}
}

int imgstream_socket_error(struct socket *sock)
{
	return sock_error(sock->sk);
}
