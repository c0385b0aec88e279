/* Connections over TLS: who is let in, who is not and what he is told; silence, strangers, bulk, many clients. */
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/unit/pki_fixture.h"
#include "tests/unit/rpc_fixture.h"

static struct fixture *listening(bool cert_required)
{
	struct fixture *f = fixture_new();
	struct err err = {0};

	if (rpc_listen_tls(&f->loop, "127.0.0.1", 0, pki.a, cert_required, FIXTURE_KINDS, fixture_on_accept, f, &f->listener,
			   &err) < 0)
		fail_msg("%s", err.text);
	assert_true(rpc_listener_port(f->listener) > 0);
	return f;
}

static void client_open_at(struct fixture *f, struct end *e, const char *address, int port, struct tls_context *tls,
			   const char *expected)
{
	struct err err = {0};

	e->f = f;
	if (rpc_connect_tls(&f->loop, address, port, tls, expected, FIXTURE_DEADLINE_MS, FIXTURE_KINDS, &fixture_callbacks, e, &e->conn, &err) < 0)
		fail_msg("%s", err.text);
}

static void client_open(struct fixture *f, struct end *e, struct tls_context *tls, const char *expected)
{
	client_open_at(f, e, "127.0.0.1", rpc_listener_port(f->listener), tls, expected);
}

static int raw_client(struct fixture *f)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				      .sin_port = htons((uint16_t)rpc_listener_port(f->listener))};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void end_close(struct fixture *f, struct end *e)
{
	if (e->conn)
		rpc_conn_close(e->conn, NULL);
	RUN_UNTIL(f, e->closes);
	buf_free(&e->got);
}

static void test_good_peers(void **state)
{
	struct fixture *f = listening(true);
	struct end c = {0};
	char *big = mem_alloc(3 << 20);

	f->model.echo = f->model.keep_nothing = true;
	client_open(f, &c, pki.b, "hostA");
	assert_int_equal(rpc_send(c.conn, FRAME_CTL, "x", 1), -ENOTCONN);
	RUN_UNTIL(f, c.opens && f->n_accepted && f->accepted[0].opens);
	assert_string_equal(c.peer, "hostA");
	assert_string_equal(f->accepted[0].peer, "hostB");
	for (size_t i = 0; i < 3 << 20; i++)
		big[i] = (char)(i * 7 + (i >> 11));
	/* All the ways a payload may lie over the first record. */
	static const size_t heads[] = {0, 1, 16375, 16376, 16377, 40000}, bodies[] = {0, 1, 16370, 16384, 300000, 3 << 20};
	size_t expect = 0;
	int frames = 0;
	for (int h = 0; h < 6; h++)
		for (int b = 0; b < 6; b++) {
			assert_int_equal(rpc_send_parts(c.conn, FRAME_DATA, big + 5, heads[h], big, bodies[b]), 0);
			frames++;
			RUN_UNTIL(f, c.frames == frames);
			assert_int_equal(c.got.len - expect, heads[h] + bodies[b]);
			assert_memory_equal(c.got.data + expect, big + 5, heads[h]);
			assert_memory_equal(c.got.data + expect + heads[h], big, bodies[b]);
			expect = c.got.len;
		}
	rpc_conn_close(c.conn, NULL);
	RUN_UNTIL(f, c.closes && f->accepted[0].closes);
	assert_int_equal(c.rc, 0);
	assert_int_equal(f->accepted[0].rc, 0);
	free(big);
	buf_free(&c.got);
	fixture_free(f);
}

static void test_other_clusters_client(void **state)
{
	struct fixture *f = listening(true);
	struct end c = {0};

	client_open(f, &c, pki.stranger, NULL);
	RUN_UNTIL(f, c.closes);
	/* The client sees at once that the server is not of its CA. */
	assert_int_equal(c.opens, 0);
	assert_int_equal(c.rc, -EACCES);
	assert_non_null(strstr(c.err.text, "not of our cluster's CA"));
	RUN_UNTIL(f, f->accepted[0].closes);
	assert_int_equal(f->accepted[0].opens, 0);
	assert_int_equal(f->accepted[0].rc, -EACCES);
	assert_non_null(strstr(f->accepted[0].err.text, "does not accept our certificate"));
	fixture_free(f);
}

/* A client that would trust anybody, with the certificate of another CA: the server must refuse it. */
static void test_server_verifies_the_client(void **state)
{
	struct fixture *f = listening(true);
	struct end c = {0};

	SSL_CTX_set_verify(pki.stranger->ctx, SSL_VERIFY_NONE, NULL);
	char *uuid = pki.stranger->cluster_uuid;
	pki.stranger->cluster_uuid = NULL;
	client_open(f, &c, pki.stranger, NULL);
	RUN_UNTIL(f, c.closes && f->accepted[0].closes);
	pki.stranger->cluster_uuid = uuid;
	SSL_CTX_set_verify(pki.stranger->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	assert_int_equal(f->accepted[0].opens, 0);
	assert_int_equal(f->accepted[0].rc, -EACCES);
	assert_non_null(strstr(f->accepted[0].err.text, "not of our cluster's CA"));
	assert_int_equal(c.rc, -EACCES);
	assert_non_null(strstr(c.err.text, "does not accept our certificate"));
	fixture_free(f);
}

static void test_right_ca_wrong_cluster(void **state)
{
	struct fixture *f = listening(true);
	struct end c = {0};

	client_open(f, &c, pki.moved, NULL);
	RUN_UNTIL(f, c.closes && f->accepted[0].closes);
	assert_int_equal(c.opens, 0);
	assert_int_equal(c.rc, -EACCES);
	assert_non_null(strstr(c.err.text, "the certificate of host 'hostA' is of cluster " UUID_ONE ", this is cluster " UUID_TWO));
	assert_int_equal(f->accepted[0].opens, 0);
	fixture_free(f);
}

/* The same seen by the server: the client does not look, and is told in words. */
static void test_wrong_cluster_is_told(void **state)
{
	struct fixture *f = listening(true);
	struct end c = {0};
	char *uuid = pki.moved->cluster_uuid;

	pki.moved->cluster_uuid = NULL;
	client_open(f, &c, pki.moved, NULL);
	RUN_UNTIL(f, c.closes && f->accepted[0].closes);
	pki.moved->cluster_uuid = uuid;
	assert_int_equal(c.rc, -ECONNREFUSED);
	assert_non_null(strstr(c.err.text, "'hostM' is of cluster " UUID_TWO ", this is cluster " UUID_ONE));
	assert_int_equal(f->accepted[0].opens, 0);
	assert_int_equal(f->accepted[0].rc, -EACCES);
	fixture_free(f);
}

static void test_wrong_name(void **state)
{
	struct fixture *f = listening(true);
	struct end c = {0};

	client_open(f, &c, pki.b, "hostC");
	RUN_UNTIL(f, c.closes && f->accepted[0].closes);
	assert_int_equal(c.opens, 0);
	assert_int_equal(c.rc, -EACCES);
	assert_non_null(strstr(c.err.text, "is host 'hostA', but 'hostC' was expected there"));
	assert_int_equal(f->accepted[0].rc, -ECONNREFUSED);
	fixture_free(f);
}

static void test_no_certificate_where_one_is_required(void **state)
{
	struct fixture *f = listening(true);
	struct tls_context *join = NULL;
	struct end c = {0};

	assert_int_equal(tls_context_for_join(pki.fingerprint1, &join, NULL), 0);
	client_open(f, &c, join, "hostA");
	RUN_UNTIL(f, c.closes && f->accepted[0].closes);
	assert_int_equal(f->accepted[0].opens, 0);
	assert_int_equal(f->accepted[0].rc, -EACCES);
	assert_non_null(strstr(f->accepted[0].err.text, "shows no certificate"));
	assert_int_equal(c.rc, -EACCES);
	assert_non_null(strstr(c.err.text, "wants a certificate of the cluster"));
	tls_context_free(join);
	fixture_free(f);
}

static void test_join(void **state)
{
	struct fixture *f = listening(false);
	struct tls_context *join = NULL;
	struct end c = {0}, wrong = {0}, member = {0};
	char colons[96], *p = colons;

	f->model.echo = true;
	/* The way other tools print it is taken, too. */
	for (int i = 0; i < 64; i += 2)
		p += sprintf(p, "%s%c%c", i ? ":" : "", toupper(pki.fingerprint1[i]), toupper(pki.fingerprint1[i + 1]));
	assert_int_equal(tls_context_for_join(colons, &join, NULL), 0);
	client_open(f, &c, join, NULL);
	RUN_UNTIL(f, c.opens && f->n_accepted == 1 && f->accepted[0].opens);
	assert_string_equal(c.peer, "hostA");
	assert_string_equal(f->accepted[0].peer, "");
	assert_null(rpc_conn_peer(f->accepted[0].conn));
	rpc_send(c.conn, FRAME_CTL, "token", 5);
	RUN_UNTIL(f, c.frames == 1);
	/* A stranger may not make us hold much. */
	static char big[LIMIT_RPC_ANONYMOUS_FRAME_BYTES + 1];
	rpc_send(c.conn, FRAME_CTL, big, sizeof(big));
	RUN_UNTIL(f, c.closes);
	assert_int_equal(c.rc, -ECONNREFUSED);
	assert_non_null(strstr(c.err.text, "too large"));
	buf_free(&c.got);
	tls_context_free(join);

	assert_int_equal(tls_context_for_join(pki.fingerprint2, &join, NULL), 0);
	client_open(f, &wrong, join, NULL);
	RUN_UNTIL(f, wrong.closes);
	assert_int_equal(wrong.opens, 0);
	assert_int_equal(wrong.rc, -EACCES);
	assert_non_null(strstr(wrong.err.text, "does not have the fingerprint you gave"));
	tls_context_free(join);

	/* A host with a certificate is still known by its name. */
	client_open(f, &member, pki.b, "hostA");
	RUN_UNTIL(f, member.opens && f->n_accepted == 3 && f->accepted[2].opens);
	assert_string_equal(f->accepted[2].peer, "hostB");
	end_close(f, &member);
	for (int i = 0; i < f->n_accepted; i++)
		buf_free(&f->accepted[i].got);
	fixture_free(f);
}

static void test_too_many_join_at_once(void **state)
{
	struct fixture *f = listening(false);
	struct tls_context *join = NULL;
	struct end c[LIMIT_RPC_ANONYMOUS + 1] = {0}, member = {0};
	int i;

	assert_int_equal(tls_context_for_join(pki.fingerprint1, &join, NULL), 0);
	for (i = 0; i < LIMIT_RPC_ANONYMOUS; i++) {
		client_open(f, &c[i], join, NULL);
		RUN_UNTIL(f, c[i].opens && f->n_accepted == i + 1 && f->accepted[i].opens);
	}
	client_open(f, &c[i], join, NULL);
	RUN_UNTIL(f, c[i].closes && f->accepted[i].closes);
	assert_int_equal(c[i].rc, -ECONNREFUSED);
	assert_non_null(strstr(c[i].err.text, "too many hosts are joining at once"));
	assert_int_equal(f->accepted[i].opens, 0);
	/* Members are not meant by this. */
	client_open(f, &member, pki.b, "hostA");
	RUN_UNTIL(f, member.opens);
	end_close(f, &member);
	/* One goes, one may come. */
	end_close(f, &c[0]);
	RUN_UNTIL(f, f->accepted[0].closes);
	c[0] = (struct end){0};
	client_open(f, &c[0], join, NULL);
	RUN_UNTIL(f, f->n_accepted == LIMIT_RPC_ANONYMOUS + 3 && f->accepted[LIMIT_RPC_ANONYMOUS + 2].opens);
	for (i = 0; i < LIMIT_RPC_ANONYMOUS; i++)
		end_close(f, &c[i]);
	tls_context_free(join);
	fixture_free(f);
}

static void test_garbage_on_the_port(void **state)
{
	static const char *const texts[] = {"GET / HTTP/1.1\r\n\r\n", "Gy\1\1aaaaaaaaaaaaaaaaa", "\x16\x03\x01\x40\x00" "aaaaaaaaaaaaa"};
	struct fixture *f = listening(true);

	for (int i = 0; i < 3; i++) {
		int fd = raw_client(f);

		assert_int_equal(write(fd, texts[i], 18), 18);
		RUN_UNTIL(f, f->n_accepted == i + 1);
		shutdown(fd, SHUT_WR);
		RUN_UNTIL(f, f->accepted[i].closes);
		assert_int_equal(f->accepted[i].opens, 0);
		assert_true(f->accepted[i].rc == -EPROTO || f->accepted[i].rc == -ECONNRESET);
		close(fd);
	}
	assert_int_equal(f->accepted[0].rc, -EPROTO);
	assert_non_null(strstr(f->accepted[0].err.text, "does not speak TLS 1.3"));
	fixture_free(f);
}

static void test_silent_client_times_out(void **state)
{
	struct fixture *f = listening(true);
	int fd = raw_client(f);
	uint64_t begun = uv_hrtime();

	RUN_UNTIL(f, f->n_accepted && f->accepted[0].closes);
	assert_in_range((uv_hrtime() - begun) / 1000000, LIMIT_RPC_HANDSHAKE_MS - 100, LIMIT_RPC_HANDSHAKE_MS + 1500);
	assert_int_equal(f->accepted[0].rc, -ETIMEDOUT);
	close(fd);
	fixture_free(f);
}

/* A server that accepts and says nothing: the client's own deadline. */
static void test_silent_server_times_out(void **state)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	struct fixture *f = fixture_new();
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct end c = {0};
	struct err err = {0};

	assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
	assert_int_equal(listen(fd, 1), 0);
	getsockname(fd, (struct sockaddr *)&address, &len);
	assert_int_equal(rpc_connect_tls(&f->loop, "127.0.0.1", ntohs(address.sin_port), pki.b, NULL, 200, FIXTURE_KINDS,
					 &fixture_callbacks, &c, &c.conn, &err), 0);
	RUN_UNTIL(f, c.closes);
	assert_int_equal(c.rc, -ETIMEDOUT);
	close(fd);
	fixture_free(f);
}

/* More silent strangers than handshakes are allowed at once: a host of the cluster still gets in, soon. */
static void test_silent_crowd_does_not_keep_hosts_out(void **state)
{
	struct fixture *f = listening(true);
	int fds[LIMIT_RPC_HANDSHAKES + 8];
	struct end c = {0};
	uint64_t begun;

	for (int i = 0; i < LIMIT_RPC_HANDSHAKES + 8; i++)
		fds[i] = raw_client(f);
	RUN_UNTIL(f, f->n_accepted == LIMIT_RPC_HANDSHAKES);
	fixture_run_ms(f, 100);
	assert_int_equal(f->n_accepted, LIMIT_RPC_HANDSHAKES);
	begun = uv_hrtime();
	client_open(f, &c, pki.b, "hostA");
	RUN_UNTIL(f, c.opens);
	assert_true((uv_hrtime() - begun) / 1000000 < LIMIT_RPC_HANDSHAKE_GRACE_MS + 2000);
	assert_int_equal(f->accepted[0].rc, -EBUSY);
	end_close(f, &c);
	for (int i = 0; i < LIMIT_RPC_HANDSHAKES + 8; i++)
		close(fds[i]);
	fixture_free(f);
}

/* The server refuses in the middle of a stream that it does not read to its end. */
static void test_refusal_reaches_a_sender(void **state)
{
	struct fixture *f = listening(true);
	static char mib[1 << 20];
	struct end c = {0};

	f->model.close_at_frame = true;
	f->model.refuse_with = "the job was aborted";
	f->model.keep_nothing = true;
	client_open(f, &c, pki.b, NULL);
	RUN_UNTIL(f, c.opens);
	for (int i = 0; i < 12; i++)
		assert_int_equal(rpc_send(c.conn, FRAME_DATA, mib, sizeof(mib)), 0);
	RUN_UNTIL(f, c.closes && f->accepted[0].closes);
	assert_int_equal(c.rc, -ECONNREFUSED);
	assert_non_null(strstr(c.err.text, "refused: the job was aborted"));
	assert_int_equal(f->accepted[0].frames, 1);
	fixture_free(f);
}

static void test_cut_without_goodbye(void **state)
{
	struct fixture *f = listening(true);
	struct end c = {0};
	uv_os_fd_t fd;

	client_open(f, &c, pki.b, NULL);
	RUN_UNTIL(f, c.opens && f->n_accepted && f->accepted[0].opens);
	/* The client's descriptor is found by its peer, and cut below TLS. */
	for (fd = 3; fd < 256; fd++) {
		struct sockaddr_in address = {0};
		socklen_t len = sizeof(address);

		if (getpeername(fd, (struct sockaddr *)&address, &len) == 0 && address.sin_family == AF_INET &&
		    ntohs(address.sin_port) == rpc_listener_port(f->listener))
			shutdown(fd, SHUT_WR);
	}
	RUN_UNTIL(f, f->accepted[0].closes);
	assert_int_equal(f->accepted[0].rc, -ECONNRESET);
	assert_non_null(strstr(f->accepted[0].err.text, "was cut"));
	end_close(f, &c);
	fixture_free(f);
}

static void test_peer_that_stops_reading_is_dropped(void **state)
{
	struct fixture *f = listening(true);
	static char mib[1 << 20];
	struct end c = {0};
	int rc = 0, sent = 0;

	f->model.pause_at_open = true;
	client_open(f, &c, pki.b, NULL);
	RUN_UNTIL(f, c.opens && f->n_accepted && f->accepted[0].opens);
	while (sent < 200 && (rc = rpc_send(c.conn, FRAME_DATA, mib, sizeof(mib))) == 0) {
		sent++;
		uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	assert_int_equal(rc, -ENOBUFS);
	assert_true(sent >= 15 && sent < 100);
	RUN_UNTIL(f, c.closes);
	assert_int_equal(c.rc, -ENOBUFS);
	fixture_free(f);
}

/* As a migration uses it: frames of 1 MiB, held below a bound by rpc_conn_queued() and on_drain. */
static void test_bulk_with_back_pressure(void **state)
{
	struct fixture *f = listening(true);
	static char mib[1 << 20];
	struct end c = {0};
	int sent = 0, total = 200;
	uint64_t begun;

	f->model.keep_nothing = true;
	client_open(f, &c, pki.b, NULL);
	RUN_UNTIL(f, c.opens && f->n_accepted && f->accepted[0].opens);
	begun = uv_hrtime();
	while (sent < total) {
		while (sent < total && rpc_conn_queued(c.conn) < 4 << 20) {
			assert_int_equal(rpc_send_parts(c.conn, FRAME_DATA, "hd", 2, mib, sizeof(mib)), 0);
			sent++;
		}
		uv_run(&f->loop, UV_RUN_ONCE);
	}
	RUN_UNTIL(f, f->accepted[0].frames == total);
	print_message("%d MiB over TLS, both ends in this process: %.0f MiB/s\n", total,
		      total / ((double)(uv_hrtime() - begun) / 1e9));
	assert_int_equal(f->accepted[0].got_bytes, (uint64_t)total * ((1 << 20) + 2));
	end_close(f, &c);
	fixture_free(f);
}

/* Why the server let one go, if it did: the client only sees the cut. */
static void fail_of(struct fixture *f, int i, const struct end *e)
{
	for (int k = 0; k < f->n_accepted; k++)
		if (f->accepted[k].closes)
			print_message("accepted %d: %d %s\n", k, f->accepted[k].rc, f->accepted[k].err.text);
	fail_msg("client %d: %s", i, e->err.text);
}

static void test_many_clients(void **state)
{
	struct fixture *f = listening(true);
	struct end *c = mem_alloc((LIMIT_RPC_CLIENTS + 1) * sizeof(*c));
	int i;

	f->model.echo = true;
	f->model.keep_nothing = true;
	/* In crowds: those that do not fit among the handshakes wait, and none is lost. */
	for (int first = 0; first < LIMIT_RPC_CLIENTS; first += 2 * LIMIT_RPC_HANDSHAKES) {
		for (i = first; i < first + 2 * LIMIT_RPC_HANDSHAKES; i++)
			client_open(f, &c[i], pki.b, "hostA");
		for (i = first; i < first + 2 * LIMIT_RPC_HANDSHAKES; i++) {
			RUN_UNTIL(f, c[i].opens || c[i].closes);
			if (c[i].closes)
				fail_of(f, i, &c[i]);
			assert_int_equal(rpc_send(c[i].conn, FRAME_CTL, &i, sizeof(i)), 0);
		}
	}
	for (i = 0; i < LIMIT_RPC_CLIENTS; i++) {
		RUN_UNTIL(f, c[i].frames == 1 || c[i].closes);
		if (c[i].closes)
			fail_of(f, i, &c[i]);
		assert_memory_equal(c[i].got.data, &i, sizeof(i));
	}
	client_open(f, &c[i], pki.b, "hostA");
	RUN_UNTIL(f, c[i].closes);
	assert_int_equal(c[i].opens, 0);
	for (i = 0; i < LIMIT_RPC_CLIENTS; i++)
		rpc_conn_close(c[i].conn, NULL);
	for (i = 0; i < LIMIT_RPC_CLIENTS; i++) {
		RUN_UNTIL(f, c[i].closes);
		buf_free(&c[i].got);
	}
	free(c);
	fixture_free(f);
}

static void test_host_names_are_resolved(void **state)
{
	struct fixture *f = listening(true);
	struct end c = {0}, early = {0};

	client_open_at(f, &c, "localhost", rpc_listener_port(f->listener), pki.b, "hostA");
	client_open_at(f, &early, "localhost", rpc_listener_port(f->listener), pki.b, "hostA");
	rpc_conn_close(early.conn, NULL);
	RUN_UNTIL(f, c.opens || c.closes);
	RUN_UNTIL(f, early.closes);
	assert_int_equal(early.rc, 0);
	assert_int_equal(c.opens, 1);
	end_close(f, &c);
	fixture_free(f);
}

static void test_nobody_listens(void **state)
{
	struct fixture *f = listening(true);
	int port = rpc_listener_port(f->listener);
	struct end c = {0};

	rpc_listener_close(f->listener);
	f->listener = NULL;
	fixture_run_ms(f, 5);
	client_open_at(f, &c, "127.0.0.1", port, pki.b, NULL);
	RUN_UNTIL(f, c.closes);
	assert_int_equal(c.rc, -ECONNREFUSED);
	assert_non_null(strstr(c.err.text, "cannot connect to 127.0.0.1:"));
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_peers),
		cmocka_unit_test(test_other_clusters_client),
		cmocka_unit_test(test_server_verifies_the_client),
		cmocka_unit_test(test_right_ca_wrong_cluster),
		cmocka_unit_test(test_wrong_cluster_is_told),
		cmocka_unit_test(test_wrong_name),
		cmocka_unit_test(test_no_certificate_where_one_is_required),
		cmocka_unit_test(test_join),
		cmocka_unit_test(test_too_many_join_at_once),
		cmocka_unit_test(test_garbage_on_the_port),
		cmocka_unit_test(test_silent_client_times_out),
		cmocka_unit_test(test_silent_server_times_out),
		cmocka_unit_test(test_silent_crowd_does_not_keep_hosts_out),
		cmocka_unit_test(test_refusal_reaches_a_sender),
		cmocka_unit_test(test_cut_without_goodbye),
		cmocka_unit_test(test_peer_that_stops_reading_is_dropped),
		cmocka_unit_test(test_bulk_with_back_pressure),
		cmocka_unit_test(test_many_clients),
		cmocka_unit_test(test_host_names_are_resolved),
		cmocka_unit_test(test_nobody_listens),
	};
	return cmocka_run_group_tests(tests, pki_set_up, pki_tear_down);
}
