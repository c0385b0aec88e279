/* Connections over unix sockets: the order of callbacks, refusals, back-pressure, limits, the socket file. */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "tests/unit/rpc_fixture.h"

static struct fixture *listening(void)
{
	struct fixture *f = fixture_new();
	struct err err = {0};

	assert_int_equal(rpc_listen_unix(&f->loop, f->path, FIXTURE_KINDS, fixture_on_accept, f, &f->listener, &err), 0);
	return f;
}

static void client_open(struct fixture *f, struct end *e)
{
	struct err err = {0};

	e->f = f;
	assert_int_equal(rpc_connect_unix(&f->loop, f->path, FIXTURE_KINDS, &fixture_callbacks, e, &e->conn, &err), 0);
}

/* A stranger's own socket, so that any bytes can be sent. */
static int raw_client(struct fixture *f)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(address.sun_path, f->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void test_echo(void **state)
{
	struct fixture *f = listening();
	struct end c = {0};
	char *big = mem_alloc(3 << 20);

	f->model.echo = true;
	f->model.keep_nothing = true;
	client_open(f, &c);
	assert_int_equal(rpc_send(c.conn, FRAME_CTL, "x", 1), -ENOTCONN);
	RUN_UNTIL(f, c.opens);
	for (size_t i = 0; i < 3 << 20; i++)
		big[i] = (char)(i * 7 + (i >> 11));
	assert_int_equal(rpc_send(c.conn, FRAME_CTL, NULL, 0), 0);
	assert_int_equal(rpc_send_parts(c.conn, FRAME_DATA, "head", 4, big, 3 << 20), 0);
	assert_int_equal(rpc_send(c.conn, FRAME_CTL, "tail", 4), 0);
	RUN_UNTIL(f, c.frames == 3);
	assert_int_equal(c.got.len, (3 << 20) + 8);
	assert_memory_equal(c.got.data, "head", 4);
	assert_memory_equal(c.got.data + 4, big, 3 << 20);
	assert_memory_equal(c.got.data + 4 + (3 << 20), "tail", 4);
	assert_string_equal(rpc_conn_address(c.conn), f->path);
	assert_null(rpc_conn_peer(c.conn));
	rpc_conn_close(c.conn, NULL);
	assert_int_equal(rpc_send(c.conn, FRAME_CTL, "x", 1), -EPIPE);
	RUN_UNTIL(f, c.closes && f->accepted[0].closes);
	assert_int_equal(c.rc, 0);
	assert_int_equal(f->accepted[0].rc, 0);
	assert_int_equal(f->accepted[0].opens, 1);
	free(big);
	buf_free(&c.got);
	fixture_free(f);
}

static void test_nobody_listens(void **state)
{
	struct fixture *f = fixture_new();
	struct end c = {0};

	client_open(f, &c);
	RUN_UNTIL(f, c.closes);
	assert_int_equal(c.opens, 0);
	assert_int_equal(c.rc, -ENOENT);
	assert_non_null(strstr(c.err.text, "is the daemon running there?"));
	fixture_free(f);
}

static void test_path_too_long(void **state)
{
	struct fixture *f = fixture_new();
	struct rpc_conn *conn = NULL;
	struct err err = {0};
	char path[200];

	memset(path, 'a', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(rpc_connect_unix(&f->loop, path, FIXTURE_KINDS, &fixture_callbacks, NULL, &conn, &err), -ENAMETOOLONG);
	assert_null(conn);
	assert_int_equal(rpc_listen_unix(&f->loop, path, FIXTURE_KINDS, fixture_on_accept, f, &f->listener, &err), -ENAMETOOLONG);
	fixture_free(f);
}

static void test_refusal_reaches_the_peer(void **state)
{
	struct fixture *f = listening();
	struct end c = {0};

	f->model.close_at_frame = true;
	f->model.refuse_with = "not today\033[31m";
	client_open(f, &c);
	RUN_UNTIL(f, c.opens);
	/* More than the server reads before it closes: its unread rest must not destroy the refusal. */
	for (int i = 0; i < 50; i++)
		rpc_send(c.conn, FRAME_CTL, f, sizeof(*f) < 100000 ? sizeof(*f) : 100000);
	RUN_UNTIL(f, c.closes);
	assert_int_equal(c.rc, -ECONNREFUSED);
	assert_non_null(strstr(c.err.text, "refused: not today [31m"));
	assert_int_equal(c.frames, 0);
	RUN_UNTIL(f, f->accepted[0].closes);
	assert_int_equal(f->accepted[0].rc, 0);
	assert_int_equal(f->accepted[0].frames, 1);
	fixture_free(f);
}

static void read_refusal(struct fixture *f, int fd, const char *text)
{
	uint8_t in[600] = {0};
	ssize_t n;

	RUN_UNTIL(f, recv(fd, in, sizeof(in), MSG_DONTWAIT | MSG_PEEK) > 0);
	n = recv(fd, in, sizeof(in) - 1, MSG_DONTWAIT);
	assert_true(n > FRAME_HEADER_BYTES);
	assert_int_equal(in[3], FRAME_REFUSAL);
	assert_non_null(strstr((char *)in + FRAME_HEADER_BYTES, text));
}

static void test_strangers_are_told_and_dropped(void **state)
{
	static const struct { const char *bytes; size_t len; const char *text; } cases[] = {
		{"GET / HTTP/1.0\r\n\r\n", 18, "this is no frame of Gantry's protocol"},
		{"Gy\x07\x01\0\0\0\1x", 9, "this is protocol 1, you speak 7: upgrade"},
		{"Gy\x01\x03\0\0\0\1x", 9, "a frame of kind 3 is not understood here"},
		{"Gy\x01\x01\xff\xff\xff\xff", 8, "is too large"},
	};
	struct fixture *f = listening();

	for (int i = 0; i < 4; i++) {
		int fd = raw_client(f);

		assert_int_equal(write(fd, cases[i].bytes, cases[i].len), cases[i].len);
		read_refusal(f, fd, cases[i].text);
		close(fd);
		RUN_UNTIL(f, f->accepted[i].closes);
		assert_int_equal(f->accepted[i].rc, -EPROTO);
		assert_int_equal(f->accepted[i].frames, 0);
	}
	fixture_free(f);
}

static void test_refusal_of_a_newer_peer_is_understood(void **state)
{
	struct fixture *f = listening();
	int fd = raw_client(f);

	assert_int_equal(write(fd, "Gy\x09\x05\0\0\0\5I am9", 13), 13);
	RUN_UNTIL(f, f->n_accepted && f->accepted[0].closes);
	assert_int_equal(f->accepted[0].rc, -ECONNREFUSED);
	assert_non_null(strstr(f->accepted[0].err.text, "refused: I am9"));
	close(fd);
	fixture_free(f);
}

static void test_cut_in_a_message(void **state)
{
	struct fixture *f = listening();
	int fd = raw_client(f);

	assert_int_equal(write(fd, "Gy\x01\x01\0\0\0\5ab", 10), 10);
	close(fd);
	RUN_UNTIL(f, f->n_accepted && f->accepted[0].closes);
	assert_int_equal(f->accepted[0].rc, -ECONNRESET);
	assert_non_null(strstr(f->accepted[0].err.text, "in the middle of a message"));
	fixture_free(f);
}

static void test_peer_that_stops_reading_is_dropped(void **state)
{
	struct fixture *f = listening();
	static char mib[1 << 20];
	struct end c = {0};
	int rc = 0, sent = 0;

	f->model.pause_at_open = true;
	client_open(f, &c);
	RUN_UNTIL(f, c.opens && f->n_accepted && f->accepted[0].opens);
	while (sent < 100 && (rc = rpc_send(c.conn, FRAME_DATA, mib, sizeof(mib))) == 0) {
		sent++;
		uv_run(&f->loop, UV_RUN_NOWAIT);
		assert_true(rpc_conn_queued(c.conn) <= LIMIT_RPC_QUEUE_BYTES + sizeof(mib));
	}
	assert_int_equal(rc, -ENOBUFS);
	assert_in_range(sent, 15, 17);
	assert_int_equal(c.closes, 0); /* never from inside the call */
	assert_int_equal(rpc_send(c.conn, FRAME_DATA, mib, 1), -EPIPE);
	RUN_UNTIL(f, c.closes);
	assert_int_equal(c.rc, -ENOBUFS);
	assert_non_null(strstr(c.err.text, "does not read"));
	fixture_free(f);
}

static void test_drain_and_unpause(void **state)
{
	struct fixture *f = listening();
	static char mib[1 << 20];
	struct end c = {0};

	f->model.pause_at_open = true;
	f->model.keep_nothing = true;
	client_open(f, &c);
	RUN_UNTIL(f, c.opens && f->n_accepted && f->accepted[0].opens);
	for (int i = 0; i < 8; i++)
		assert_int_equal(rpc_send(c.conn, FRAME_DATA, mib, sizeof(mib)), 0);
	fixture_run_ms(f, 50);
	assert_int_equal(c.drains, 0);
	assert_int_equal(f->accepted[0].frames, 0);
	assert_true(rpc_conn_queued(c.conn) > 6u << 20);
	rpc_conn_pause_reading(f->accepted[0].conn, false);
	assert_int_equal(f->accepted[0].frames, 0); /* not from inside the call */
	RUN_UNTIL(f, f->accepted[0].frames == 8);
	assert_int_equal(c.drains, 1);
	assert_int_equal(rpc_conn_queued(c.conn), 0);
	rpc_conn_close(c.conn, NULL);
	RUN_UNTIL(f, c.closes);
	fixture_free(f);
}

/* Frames that came in one read while reading was paused wait, one by one, and none is lost at the peer's end. */
static void test_pause_holds_frames_already_read(void **state)
{
	struct fixture *f = listening();
	struct end c = {0};

	f->model.pause_each_frame = true;
	client_open(f, &c);
	RUN_UNTIL(f, c.opens && f->n_accepted && f->accepted[0].opens);
	for (char i = 0; i < 5; i++)
		rpc_send(c.conn, FRAME_CTL, &i, 1);
	rpc_conn_close(c.conn, NULL);
	for (int i = 1; i <= 5; i++) {
		RUN_UNTIL(f, f->accepted[0].frames == i);
		fixture_run_ms(f, 10);
		assert_int_equal(f->accepted[0].frames, i);
		assert_int_equal(f->accepted[0].closes, 0);
		rpc_conn_pause_reading(f->accepted[0].conn, false);
	}
	RUN_UNTIL(f, f->accepted[0].closes && c.closes);
	assert_int_equal(f->accepted[0].rc, 0);
	assert_memory_equal(f->accepted[0].got.data, "\0\1\2\3\4", 5);
	fixture_free(f);
}

static void test_close_flushes(void **state)
{
	struct fixture *f = listening();
	static char mib[1 << 20];
	struct end c = {0};

	f->model.keep_nothing = true;
	client_open(f, &c);
	RUN_UNTIL(f, c.opens);
	for (int i = 0; i < 10; i++)
		assert_int_equal(rpc_send(c.conn, FRAME_DATA, mib, sizeof(mib)), 0);
	rpc_conn_close(c.conn, NULL);
	rpc_conn_close(c.conn, NULL);
	RUN_UNTIL(f, c.closes && f->accepted[0].closes);
	assert_int_equal(f->accepted[0].frames, 10);
	assert_int_equal(c.closes, 1);
	fixture_free(f);
}

static void test_close_does_not_wait_for_a_deaf_peer(void **state)
{
	struct fixture *f = listening();
	static char mib[1 << 20];
	uint64_t begun;
	struct end c = {0};

	f->model.pause_at_open = true;
	client_open(f, &c);
	RUN_UNTIL(f, c.opens && f->n_accepted && f->accepted[0].opens);
	for (int i = 0; i < 4; i++)
		rpc_send(c.conn, FRAME_DATA, mib, sizeof(mib));
	begun = uv_hrtime();
	rpc_conn_close(c.conn, NULL);
	RUN_UNTIL(f, c.closes);
	assert_in_range((uv_hrtime() - begun) / 1000000, LIMIT_RPC_CLOSE_MS - 50, LIMIT_RPC_CLOSE_MS + 1000);
	assert_int_equal(c.rc, 0);
	fixture_free(f);
}

static void test_close_before_open(void **state)
{
	struct fixture *f = listening();
	struct end c = {0};

	client_open(f, &c);
	rpc_conn_close(c.conn, "never mind");
	assert_int_equal(c.closes, 0);
	RUN_UNTIL(f, c.closes);
	assert_int_equal(c.opens, 0);
	assert_int_equal(c.rc, 0);
	fixture_free(f);
}

static void test_too_large_is_not_sent(void **state)
{
	struct fixture *f = listening();
	struct end c = {0};

	client_open(f, &c);
	RUN_UNTIL(f, c.opens);
	assert_int_equal(rpc_send_parts(c.conn, FRAME_DATA, "x", 1, f, LIMIT_FRAME_BYTES), -EMSGSIZE);
	assert_int_equal(rpc_send(c.conn, FRAME_DATA, f, SIZE_MAX), -EMSGSIZE);
	rpc_conn_close(c.conn, NULL);
	RUN_UNTIL(f, c.closes);
	fixture_free(f);
}

static void test_client_limit(void **state)
{
	struct fixture *f = listening();
	struct end *c = mem_alloc((LIMIT_RPC_CLIENTS + 1) * sizeof(*c));
	int i;

	for (i = 0; i < LIMIT_RPC_CLIENTS; i++) {
		client_open(f, &c[i]);
		RUN_UNTIL(f, c[i].opens && f->n_accepted == i + 1);
	}
	client_open(f, &c[i]);
	RUN_UNTIL(f, c[i].closes);
	assert_int_equal(c[i].rc, -ECONNREFUSED);
	assert_non_null(strstr(c[i].err.text, "too many connections"));
	assert_int_equal(f->n_accepted, LIMIT_RPC_CLIENTS);
	/* One goes, one may come. */
	rpc_conn_close(c[7].conn, NULL);
	RUN_UNTIL(f, c[7].closes && f->accepted[7].closes);
	c[i] = (struct end){0};
	client_open(f, &c[i]);
	RUN_UNTIL(f, c[i].opens && f->n_accepted == LIMIT_RPC_CLIENTS + 1);
	fixture_run_ms(f, 20);
	assert_int_equal(c[i].closes, 0);
	for (i = 0; i <= LIMIT_RPC_CLIENTS; i++)
		if (c[i].conn)
			rpc_conn_close(c[i].conn, NULL);
	for (i = 0; i <= LIMIT_RPC_CLIENTS; i++)
		RUN_UNTIL(f, c[i].closes == 1);
	free(c);
	fixture_free(f);
}

static void test_socket_file(void **state)
{
	struct fixture *f = listening();
	struct rpc_listener *second = NULL;
	struct err err = {0};
	struct stat st;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd;

	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(rpc_listen_unix(&f->loop, f->path, FIXTURE_KINDS, fixture_on_accept, f, &second, &err), -EADDRINUSE);
	assert_null(second);
	rpc_listener_close(f->listener);
	assert_int_equal(stat(f->path, &st), -1);
	/* What a killed daemon leaves. */
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	strcpy(address.sun_path, f->path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(rpc_listen_unix(&f->loop, f->path, FIXTURE_KINDS, fixture_on_accept, f, &f->listener, &err), 0);
	rpc_listener_close(f->listener);
	/* A file is not ours to remove. */
	fd = creat(f->path, 0600);
	close(fd);
	f->listener = NULL;
	assert_int_equal(rpc_listen_unix(&f->loop, f->path, FIXTURE_KINDS, fixture_on_accept, f, &f->listener, &err), -EEXIST);
	assert_int_equal(stat(f->path, &st), 0);
	fixture_free(f);
}

static void test_connections_outlive_the_listener(void **state)
{
	struct fixture *f = listening();
	struct end c = {0};

	f->model.echo = true;
	client_open(f, &c);
	RUN_UNTIL(f, c.opens && f->n_accepted);
	rpc_listener_close(f->listener);
	f->listener = NULL;
	rpc_send(c.conn, FRAME_CTL, "still", 5);
	RUN_UNTIL(f, c.frames == 1);
	rpc_conn_close(c.conn, NULL);
	RUN_UNTIL(f, c.closes);
	buf_free(&c.got);
	fixture_free(f);
}

static void refuse_at_accept(struct rpc_conn *conn, void *data)
{
	fixture_on_accept(conn, data);
	rpc_conn_close(conn, NULL);
}

static void test_close_at_accept(void **state)
{
	struct fixture *f = fixture_new();
	struct end c = {0};
	struct err err = {0};

	assert_int_equal(rpc_listen_unix(&f->loop, f->path, FIXTURE_KINDS, refuse_at_accept, f, &f->listener, &err), 0);
	client_open(f, &c);
	RUN_UNTIL(f, c.closes && f->accepted[0].closes);
	assert_int_equal(f->accepted[0].opens, 0);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_echo),
		cmocka_unit_test(test_nobody_listens),
		cmocka_unit_test(test_path_too_long),
		cmocka_unit_test(test_refusal_reaches_the_peer),
		cmocka_unit_test(test_strangers_are_told_and_dropped),
		cmocka_unit_test(test_refusal_of_a_newer_peer_is_understood),
		cmocka_unit_test(test_cut_in_a_message),
		cmocka_unit_test(test_peer_that_stops_reading_is_dropped),
		cmocka_unit_test(test_drain_and_unpause),
		cmocka_unit_test(test_pause_holds_frames_already_read),
		cmocka_unit_test(test_close_flushes),
		cmocka_unit_test(test_close_does_not_wait_for_a_deaf_peer),
		cmocka_unit_test(test_close_before_open),
		cmocka_unit_test(test_too_large_is_not_sent),
		cmocka_unit_test(test_client_limit),
		cmocka_unit_test(test_socket_file),
		cmocka_unit_test(test_connections_outlive_the_listener),
		cmocka_unit_test(test_close_at_accept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
