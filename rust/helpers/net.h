/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef IMGSTREAM_HELPERS_NET_H
#define IMGSTREAM_HELPERS_NET_H

struct sock;
struct socket;

/**
 * struct imgstream_socket_callbacks - what a socket's callbacks do instead of what they did
 * @wake: called from a softirq with sk_callback_lock held for reading
 * @context: for @wake
 * @data_ready: what sk_data_ready was
 * @state_change: what sk_state_change was
 * @write_space: what sk_write_space was
 */
struct imgstream_socket_callbacks {
	void (*wake)(void *context);
	void *context;
	void (*data_ready)(struct sock *sk);
	void (*state_change)(struct sock *sk);
	void (*write_space)(struct sock *sk);
};

void imgstream_socket_prepare(struct socket *sock);
void imgstream_socket_install(struct socket *sock,
			      struct imgstream_socket_callbacks *callbacks);
void imgstream_socket_uninstall(struct socket *sock,
				struct imgstream_socket_callbacks *callbacks);
int imgstream_socket_state(struct socket *sock);
int imgstream_socket_error(struct socket *sock);

#endif
