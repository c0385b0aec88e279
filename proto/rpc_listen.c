#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "lib/cleanup.h"
#include "proto/rpc_internal.h"

enum { RPC_BACKLOG = 128, RPC_RETRY_MS = 250 };

struct rpc_listener {
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_pipe_t pipe;
		uv_tcp_t tcp;
	};
	uv_timer_t timer; /* looks again for peers that wait in the backlog */
	uv_loop_t *loop;
	struct tls_context *tls;
	bool cert_required;
	uint32_t kinds;
	rpc_accept_cb cb;
	void *data;
	char *path;
	bool waiting; /* libuv holds a peer that we have not accepted yet */
	bool closing;
	bool retrying;  /* the timer runs for a peer that waits because there was no room */
	unsigned ticks; /* how often it fired so: at most once a turn of the loop, so a busy loop makes nobody look silent */
	unsigned handles_open, clients, handshakes, anonymous;
	struct rpc_conn *oldest, *newest; /* handshakes in progress, by when they were last heard */
};

static void rpc__accept_waiting(struct rpc_listener *l);

static void rpc__listener_maybe_free(struct rpc_listener *l)
{
	if (l->handles_open || l->clients)
		return;
	free(l->path);
	free(l);
}

static void rpc__on_listener_closed(uv_handle_t *handle)
{
	struct rpc_listener *l = handle->data;

	l->handles_open--;
	rpc__listener_maybe_free(l);
}

void rpc_listener_close(struct rpc_listener *l)
{
	if (!l || l->closing)
		return;
	l->closing = true;
	if (l->path)
		unlink(l->path);
	uv_close(&l->handle, rpc__on_listener_closed);
	uv_close((uv_handle_t *)&l->timer, rpc__on_listener_closed);
}

static void rpc__on_listener_timer(uv_timer_t *timer)
{
	struct rpc_listener *l = timer->data;

	if (l->retrying)
		l->ticks++;
	l->retrying = false;
	rpc__accept_waiting(l);
}

static void rpc__look_again(struct rpc_listener *l, uint64_t in_ms)
{
	if (!l->waiting || l->closing)
		return;
	l->retrying = in_ms > 0;
	uv_timer_start(&l->timer, rpc__on_listener_timer, in_ms, 0);
}

static void rpc__handshake_link(struct rpc_listener *l, struct rpc_conn *c)
{
	c->heard_tick = l->ticks;
	c->next_handshake = NULL;
	c->prev_handshake = l->newest;
	if (l->newest)
		l->newest->next_handshake = c;
	else
		l->oldest = c;
	l->newest = c;
}

static void rpc__handshake_unlink(struct rpc_listener *l, struct rpc_conn *c)
{
	if (c->prev_handshake)
		c->prev_handshake->next_handshake = c->next_handshake;
	else
		l->oldest = c->next_handshake;
	if (c->next_handshake)
		c->next_handshake->prev_handshake = c->prev_handshake;
	else
		l->newest = c->prev_handshake;
	c->next_handshake = c->prev_handshake = NULL;
}

static void rpc__handshake_begin(struct rpc_listener *l, struct rpc_conn *c)
{
	c->in_handshakes = true;
	l->handshakes++;
	rpc__handshake_link(l, c);
	rpc__conn_set_timer(c, LIMIT_RPC_HANDSHAKE_MS);
}

void rpc__listener_handshake_heard(struct rpc_conn *c)
{
	rpc__handshake_unlink(c->listener, c);
	rpc__handshake_link(c->listener, c);
}

void rpc__listener_handshake_done(struct rpc_conn *c)
{
	struct rpc_listener *l = c->listener;

	c->in_handshakes = false;
	rpc__handshake_unlink(l, c);
	l->handshakes--;
	rpc__look_again(l, 0);
}

bool rpc__listener_admit_anonymous(struct rpc_conn *c)
{
	if (c->listener->anonymous >= LIMIT_RPC_ANONYMOUS)
		return false;
	c->listener->anonymous++;
	c->anonymous = true;
	return true;
}

void rpc__listener_conn_gone(struct rpc_conn *c)
{
	struct rpc_listener *l = c->listener;

	c->listener = NULL;
	if (c->anonymous)
		l->anonymous--;
	l->clients--;
	if (l->closing)
		rpc__listener_maybe_free(l);
}

/* "10.0.0.2:40112" of an accepted TCP peer. */
static char *rpc__peer_label(const uv_tcp_t *tcp)
{
	struct sockaddr_storage address = {0};
	char ip[INET6_ADDRSTRLEN] = "?";
	int len = sizeof(address), port;

	if (uv_tcp_getpeername(tcp, (struct sockaddr *)&address, &len) < 0)
		return str_dup("a peer that is gone");
	if (address.ss_family == AF_INET6) {
		uv_ip6_name((struct sockaddr_in6 *)&address, ip, sizeof(ip));
		port = ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
		return str_printf("[%s]:%d", ip, port);
	}
	uv_ip4_name((struct sockaddr_in *)&address, ip, sizeof(ip));
	port = ntohs(((struct sockaddr_in *)&address)->sin_port);
	return str_printf("%s:%d", ip, port);
}

void rpc__tcp_settings(uv_tcp_t *tcp)
{
	const int idle_s = LIMIT_RPC_SILENT_MS / 2000, interval_s = 2, count = 3;
	const unsigned timeout_ms = LIMIT_RPC_SILENT_MS;
	uv_os_fd_t fd;

	/* Best effort: without them a silent peer is found later, no worse. */
	uv_tcp_nodelay(tcp, 1);
	uv_tcp_keepalive(tcp, 1, (unsigned)idle_s);
	if (uv_fileno((uv_handle_t *)tcp, &fd) < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	/* Keep-alive does not run while something is unacknowledged; this is the deadline for that. */
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

static struct rpc_conn *rpc__accept_one(struct rpc_listener *l)
{
	struct rpc_conn *c = rpc__conn_new(l->loop, l->kinds, NULL);
	int rc;

	if (l->tls)
		rc = uv_tcp_init(l->loop, &c->tcp);
	else
		rc = uv_pipe_init(l->loop, &c->pipe, 0);
	if (rc < 0) {
		rpc__conn_free_unstarted(c);
		return NULL;
	}
	rpc__conn_handles_init(c);
	c->listener = l;
	l->clients++;
	l->waiting = false;
	if (uv_accept(&l->stream, &c->stream) < 0) {
		c->label = str_dup("a peer that is gone");
		rpc__conn_fail(c, -ECONNABORTED, NULL);
		return NULL;
	}
	c->label = l->tls ? rpc__peer_label(&c->tcp) : str_printf("the client of %s", l->path);
	return c;
}

/* Too many: said in words where that costs nothing; a TLS handshake only to say it would. */
static void rpc__turn_away(struct rpc_conn *c)
{
	if (c->tls || c->listener->tls) {
		rpc__conn_fail(c, -EBUSY, NULL);
		return;
	}
	if (rpc__conn_start(c, NULL, true, false, NULL, NULL) < 0)
		rpc__conn_fail(c, -EBUSY, NULL);
	else
		rpc_conn_close(c, "there are too many connections already: close some and try again");
}

/* Silent for the grace time, and not only because we were too busy to read what he sent. */
static bool rpc__is_silent(const struct rpc_conn *c)
{
	if (c->listener->ticks - c->heard_tick < LIMIT_RPC_HANDSHAKE_GRACE_MS / RPC_RETRY_MS)
		return false;
	return !rpc__conn_has_unread(c);
}

/* Room for one more handshake. Somebody who connects and says nothing must not keep the others out. */
static bool rpc__make_room(struct rpc_listener *l)
{
	struct err err = {0};
	struct rpc_conn *c;

	if (l->handshakes < LIMIT_RPC_HANDSHAKES)
		return true;
	for (c = l->oldest; c; c = c->next_handshake)
		if (rpc__is_silent(c))
			break;
	if (!c)
		return false;
	err_set(&err, EBUSY, "%s said nothing in its handshake while others waited", c->label);
	rpc__conn_fail(c, -EBUSY, &err);
	return true;
}

static void rpc__accept_waiting(struct rpc_listener *l)
{
	struct err err = {0};
	struct rpc_conn *c;
	int rc;

	if (!l->waiting || l->closing)
		return;
	if (!rpc__make_room(l)) {
		rpc__look_again(l, RPC_RETRY_MS);
		return;
	}
	c = rpc__accept_one(l);
	if (!c)
		return;
	if (l->clients > LIMIT_RPC_CLIENTS) {
		rpc__turn_away(c);
		return;
	}
	if (l->tls) {
		rpc__tcp_settings(&c->tcp);
		rpc__handshake_begin(l, c);
	}
	l->cb(c, l->data);
	if (c->state != RPC_CONNECTING)
		return;
	rc = rpc__conn_start(c, l->tls, true, l->cert_required, NULL, &err);
	if (rc < 0)
		rpc__conn_fail(c, rc, &err);
}

static void rpc__on_connection(uv_stream_t *stream, int status)
{
	struct rpc_listener *l = stream->data;

	if (status < 0)
		return;
	l->waiting = true;
	rpc__accept_waiting(l);
}

static struct rpc_listener *rpc__listener_new(uv_loop_t *loop, uint32_t kinds, rpc_accept_cb cb, void *data)
{
	struct rpc_listener *l = mem_alloc(sizeof(*l));

	l->loop = loop;
	l->kinds = kinds;
	l->cb = cb;
	l->data = data;
	return l;
}

/* Both handles exist from here on: an error closes them. */
static void rpc__listener_handles_init(struct rpc_listener *l)
{
	uv_timer_init(l->loop, &l->timer);
	l->handle.data = l->timer.data = l;
	l->handles_open = 2;
}

/* A socket file without a listener behind it is left by a daemon that was killed. */
static int rpc__remove_stale(const struct sockaddr_un *address, struct err *err)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const char *path = address->sun_path;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_set(err, errno, "%s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, EEXIST, "%s is there and is no socket: move it away", path);
	if (fd < 0)
		return err_set(err, errno, "%s: %s", path, strerror(errno));
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
		return err_set(err, EADDRINUSE, "%s: another daemon listens there already", path);
	if (errno != ECONNREFUSED)
		return err_set(err, errno, "%s: %s", path, strerror(errno));
	if (unlink(path) < 0)
		return err_set(err, errno, "%s: %s", path, strerror(errno));
	return 0;
}

static int rpc__unix_socket(const char *path, struct err *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;
	int rc;

	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(err, ENAMETOOLONG, "socket path %s is too long", path);
	strcpy(address.sun_path, path);
	rc = rpc__remove_stale(&address, err);
	if (rc < 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* Linux gives the file the mode of the socket: it is never open to others, not even for a moment. */
	if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return err_set(err, errno, "%s: %s", path, strerror(errno));
	return TAKE_FD(fd);
}

int rpc_listen_unix(uv_loop_t *loop, const char *path, uint32_t kinds, rpc_accept_cb cb, void *data,
		    struct rpc_listener **ret, struct err *err)
{
	struct rpc_listener *l;
	int fd, rc;

	fd = rpc__unix_socket(path, err);
	if (fd < 0)
		return fd;
	l = rpc__listener_new(loop, kinds, cb, data);
	l->path = str_dup(path);
	rc = uv_pipe_init(loop, &l->pipe, 0);
	if (rc < 0) {
		close(fd);
		unlink(path);
		rpc__listener_maybe_free(l);
		return err_set(err, -rc, "%s: %s", path, uv_strerror(rc));
	}
	rpc__listener_handles_init(l);
	rc = uv_pipe_open(&l->pipe, fd);
	if (rc < 0)
		close(fd);
	else
		rc = uv_listen(&l->stream, RPC_BACKLOG, rpc__on_connection);
	if (rc < 0) {
		rpc_listener_close(l);
		return err_set(err, -rc, "%s: %s", path, uv_strerror(rc));
	}
	*ret = l;
	return 0;
}

int rpc_listen_tls(uv_loop_t *loop, const char *address, int port, struct tls_context *tls, bool client_cert_required,
		   uint32_t kinds, rpc_accept_cb cb, void *data, struct rpc_listener **ret, struct err *err)
{
	struct sockaddr_storage bind_to = {0};
	struct rpc_listener *l;
	int rc;

	if (uv_ip4_addr(address, port, (struct sockaddr_in *)&bind_to) < 0 &&
	    uv_ip6_addr(address, port, (struct sockaddr_in6 *)&bind_to) < 0)
		return err_set(err, EINVAL, "'%s' is no IP address to listen on", address);
	l = rpc__listener_new(loop, kinds, cb, data);
	l->tls = tls;
	l->cert_required = client_cert_required;
	rc = uv_tcp_init(loop, &l->tcp);
	if (rc < 0) {
		rpc__listener_maybe_free(l);
		return err_set(err, -rc, "%s port %d: %s", address, port, uv_strerror(rc));
	}
	rpc__listener_handles_init(l);
	rc = uv_tcp_bind(&l->tcp, (struct sockaddr *)&bind_to, 0);
	if (rc == 0)
		rc = uv_listen(&l->stream, RPC_BACKLOG, rpc__on_connection);
	if (rc < 0) {
		rpc_listener_close(l);
		return err_set(err, -rc, "cannot listen on %s port %d: %s", address, port, uv_strerror(rc));
	}
	*ret = l;
	return 0;
}

int rpc_listener_port(const struct rpc_listener *l)
{
	struct sockaddr_storage address = {0};
	int len = sizeof(address);

	if (!l->tls || uv_tcp_getsockname(&l->tcp, (struct sockaddr *)&address, &len) < 0)
		return 0;
	return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
						   : ((struct sockaddr_in *)&address)->sin_port);
}
