#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "proto/rpc_internal.h"

/* What the connection is made with until the stream stands; freed when it does or when the attempt ends. */
struct rpc_connect {
	struct tls_context *tls;
	char *expected_name;
};

static void rpc__connect_free(struct rpc_connect *attempt)
{
	if (!attempt)
		return;
	free(attempt->expected_name);
	free(attempt);
}

static void rpc__connect_failed(struct rpc_conn *c, int rc)
{
	struct err err = {0};

	if (c->state != RPC_CONNECTING)
		return;
	err_set(&err, -rc, "cannot connect to %s: %s: is the daemon running there?", c->label, uv_strerror(rc));
	rpc__conn_fail(c, rc, &err);
}

static void rpc__on_connected(uv_connect_t *req, int status)
{
	struct rpc_conn *c = req->handle->data;
	struct rpc_connect *attempt = req->data;
	struct err err = {0};
	int rc;

	if (c->state == RPC_CONNECTING && status < 0) {
		rpc__connect_failed(c, status);
	} else if (c->state == RPC_CONNECTING) {
		if (attempt->tls)
			rpc__tcp_settings(&c->tcp);
		rc = rpc__conn_start(c, attempt->tls, false, false, attempt->expected_name, &err);
		if (rc < 0)
			rpc__conn_fail(c, rc, &err);
	}
	rpc__connect_free(attempt);
}

int rpc_connect_unix(uv_loop_t *loop, const char *path, uint32_t kinds, const struct rpc_callbacks *cb, void *data,
		     struct rpc_conn **ret, struct err *err)
{
	struct rpc_conn *c;
	int rc;

	/* libuv would cut a longer path off and connect to another socket. */
	if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return err_set(err, ENAMETOOLONG, "socket path %s is too long", path);
	c = rpc__conn_new(loop, kinds, str_dup(path));
	rc = uv_pipe_init(loop, &c->pipe, 0);
	if (rc < 0) {
		rpc__conn_free_unstarted(c);
		return err_set(err, -rc, "%s: %s", path, uv_strerror(rc));
	}
	rpc__conn_handles_init(c);
	rpc_conn_set_callbacks(c, cb, data);
	c->connect_req.data = mem_alloc(sizeof(struct rpc_connect));
	uv_pipe_connect(&c->connect_req, &c->pipe, path, rpc__on_connected);
	*ret = c;
	return 0;
}

static int rpc__connect_tcp(struct rpc_conn *c, struct rpc_connect *attempt)
{
	c->connect_req.data = attempt;
	return uv_tcp_connect(&c->connect_req, &c->tcp, (struct sockaddr *)&c->address, rpc__on_connected);
}

static void rpc__on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *info)
{
	struct rpc_connect *attempt = req->data;
	struct rpc_conn *c = (struct rpc_conn *)((char *)req - offsetof(struct rpc_conn, resolve_req));
	int rc = status;

	if (c->state == RPC_CONNECTING && status == 0) {
		memcpy(&c->address, info->ai_addr, info->ai_addrlen);
		c->resolving = false;
		rc = rpc__connect_tcp(c, attempt);
		if (rc == 0)
			attempt = NULL;
	}
	uv_freeaddrinfo(info);
	rpc__connect_free(attempt);
	if (rc < 0)
		rpc__connect_failed(c, rc);
	rpc__conn_on_resolved(c);
}

static int rpc__resolve(struct rpc_conn *c, struct rpc_connect *attempt, const char *name, int port)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	char service[8];
	int rc;

	snprintf(service, sizeof(service), "%d", port);
	c->resolve_req.data = attempt;
	rc = uv_getaddrinfo(c->loop, &c->resolve_req, rpc__on_resolved, name, service, &hints);
	c->resolving = rc == 0;
	return rc;
}

int rpc_connect_tls(uv_loop_t *loop, const char *address, int port, struct tls_context *tls, const char *expected_name,
		    uint32_t timeout_ms, uint32_t kinds, const struct rpc_callbacks *cb, void *data, struct rpc_conn **ret,
		    struct err *err)
{
	struct rpc_connect *attempt;
	struct rpc_conn *c;
	bool is_ip;
	int rc;

	if (port <= 0 || port > 65535)
		return err_set(err, EINVAL, "%s: %d is no port number", address, port);
	c = rpc__conn_new(loop, kinds, strchr(address, ':') ? str_printf("[%s]:%d", address, port)
							: str_printf("%s:%d", address, port));
	is_ip = uv_ip4_addr(address, port, (struct sockaddr_in *)&c->address) == 0 ||
		uv_ip6_addr(address, port, (struct sockaddr_in6 *)&c->address) == 0;
	rc = uv_tcp_init(loop, &c->tcp);
	if (rc < 0) {
		rpc__conn_free_unstarted(c);
		return err_set(err, -rc, "%s: %s", address, uv_strerror(rc));
	}
	rpc__conn_handles_init(c);
	attempt = mem_alloc(sizeof(*attempt));
	*attempt = (struct rpc_connect){.tls = tls, .expected_name = str_dup(expected_name)};
	rc = is_ip ? rpc__connect_tcp(c, attempt) : rpc__resolve(c, attempt, address, port);
	if (rc < 0) {
		/* Without callbacks the connection goes silently. */
		err_set(err, -rc, "cannot connect to %s: %s", c->label, uv_strerror(rc));
		rpc__connect_free(attempt);
		rpc__conn_fail(c, rc, NULL);
		return rc;
	}
	rpc_conn_set_callbacks(c, cb, data);
	rpc__conn_set_timer(c, timeout_ms);
	*ret = c;
	return 0;
}
