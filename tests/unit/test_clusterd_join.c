/* clusterd's API: hosts that are let in or not, consoles that are relayed. */
#include "tests/unit/clusterd_api_fixture.h"

/* ---- joining */

static char *new_token(struct client *c)
{
	Gantry__CtlToken request = GANTRY__CTL_TOKEN__INIT;
	Gantry__CtlMessage *a;

	ASK(c, 50, TOKEN, token, &request);
	a = answer(c);
	assert_int_equal(a->body_case, GANTRY__CTL_MESSAGE__BODY_TOKEN_IS);
	return a->token_is->token;
}

static void ask_join(struct client *c, const char *token, const char *name, const char *address)
{
	Gantry__CtlJoin join = GANTRY__CTL_JOIN__INIT;
	struct buf csr = {0}, key = {0};

	assert_int_equal(pki_make_request(pki_host_name_ok(name) ? name : "x", &csr, &key, NULL), 0);
	join.token = (char *)token;
	join.name = (char *)name;
	join.address = (char *)address;
	join.certificate_request = (ProtobufCBinaryData){.data = csr.data, .len = csr.len};
	ASK(c, 60, JOIN, join, &join);
	uv_run(&w.loop, UV_RUN_NOWAIT);
	buf_free(&csr);
	buf_free(&key);
}

static void test_join_is_let_in(void **state)
{
	struct tls_context *anonymous = NULL;
	struct client local, c;
	Gantry__CtlJoined *joined;
	char fingerprint[65];
	char *token;

	assert_int_equal(pki_fingerprint(&w.ca, fingerprint, NULL), 0);
	assert_int_equal(tls_context_for_join(fingerprint, &anonymous, NULL), 0);
	open_unix(&local);
	token = new_token(&local);
	assert_int_equal(strlen(token), 64 + 1 + 32);
	assert_memory_equal(token, fingerprint, 64);
	open_tls(&c, anonymous);
	ask_join(&c, token, "hostB", "10.0.0.2");
	joined = answer(&c)->joined;
	assert_int_equal(c.answers[0]->body_case, GANTRY__CTL_MESSAGE__BODY_JOINED);
	assert_int_equal(joined->node_id, 2);
	assert_string_equal(joined->cluster_uuid, UUID);
	assert_int_equal(joined->authkey.len, 9);
	assert_non_null(strstr(joined->corosync_conf, "10.0.0.2"));
	assert_non_null(strstr(joined->corosync_conf, "token: 700"));
	assert_non_null(memmem(joined->certificate.data, joined->certificate.len, "BEGIN CERTIFICATE", 17));
	assert_int_equal(model_host(&w.model, "hostB")->state, GANTRY__HOST_STATE__HOST_STATE_JOINING);
	assert_int_equal(w.model.state->n_voters, 1);
	/* The answer was lost: the same host may ask again, another one may not. */
	ask_join(&c, token, "hostB", "10.0.0.2");
	assert_int_equal(answer(&c)->joined->node_id, 2);
	ask_join(&c, token, "hostC", "10.0.0.3");
	EXPECT_ERROR(&c, PERMISSION, "used by host hostB");
	assert_int_equal(w.model.state->n_hosts, 2);
	drop_client(&c);
	drop_client(&local);
	tls_context_free(anonymous);
}

static void test_join_is_refused(void **state)
{
	struct client c;
	char *token;

	open_unix(&c);
	token = new_token(&c);
	ask_join(&c, "00112233445566778899aabbccddeeff", "hostB", "10.0.0.2");
	EXPECT_ERROR(&c, PERMISSION, "no such join token");
	ask_join(&c, "", "hostB", "10.0.0.2");
	EXPECT_ERROR(&c, PERMISSION, "no such join token");
	ask_join(&c, token, "host B", "10.0.0.2");
	EXPECT_ERROR(&c, BAD_DATA, "host B");
	ask_join(&c, token, "hostB", "10.0.0.2\n}");
	EXPECT_ERROR(&c, BAD_DATA, "IP address");
	ask_join(&c, token, "hostA", "10.0.0.2");
	EXPECT_ERROR(&c, EXISTS, "hostA");
	ask_join(&c, token, "hostB", "10.0.0.1");
	EXPECT_ERROR(&c, EXISTS, "hostA");
	assert_int_equal(w.n_proposed, 0);
	/* A refusal does not use the token up. */
	ask_join(&c, token, "hostB", "10.0.0.2");
	assert_int_equal(answer(&c)->body_case, GANTRY__CTL_MESSAGE__BODY_JOINED);
	drop_client(&c);
}

static void test_join_without_the_ca_key(void **state)
{
	Gantry__CtlToken request = GANTRY__CTL_TOKEN__INIT;
	struct client c;

	unlink(w.path[P_CA_KEY]);
	open_unix(&c);
	ASK(&c, 1, TOKEN, token, &request);
	EXPECT_ERROR(&c, UNAVAILABLE, "CA");
	drop_client(&c);
}

static void test_tokens_are_kept_as_hashes(void **state)
{
	struct buf text = {0};
	struct client c;
	const char *secret;
	struct err err = {0};

	open_unix(&c);
	secret = strchr(new_token(&c), '.') + 1;
	assert_int_equal(atomic_file_read(w.path[P_TOKENS], 4096, &text, &err), 0);
	assert_null(strstr(buf_str(&text), secret));
	assert_int_equal(text.data[64], ' ');
	buf_free(&text);
	drop_client(&c);
}

/* ---- consoles */

static void agent_frame(struct rpc_conn *conn, const struct frame *frame, void *data)
{
	Gantry__AgentMessage *m = gantry__agent_message__unpack(NULL, frame->len, frame->payload);
	Gantry__AgentMessage out = GANTRY__AGENT_MESSAGE__INIT;
	Gantry__ConsoleData text = GANTRY__CONSOLE_DATA__INIT;
	Gantry__ConsoleClose end = GANTRY__CONSOLE_CLOSE__INIT;

	out.body_case = GANTRY__AGENT_MESSAGE__BODY_CONSOLE_DATA;
	out.console_data = &text;
	if (m->body_case == GANTRY__AGENT_MESSAGE__BODY_CONSOLE_OPEN) {
		text.data = (ProtobufCBinaryData){.data = (uint8_t *)m->console_open->domain, .len = strlen(m->console_open->domain)};
		rpc_send_message(conn, FRAME_AGENT, &out.base);
	} else if (m->body_case == GANTRY__AGENT_MESSAGE__BODY_CONSOLE_DATA && m->console_data->data.data[0] == 'q') {
		end.reason = (char *)"the guest ended";
		out.body_case = GANTRY__AGENT_MESSAGE__BODY_CONSOLE_CLOSE;
		out.console_close = &end;
		rpc_send_message(conn, FRAME_AGENT, &out.base);
	} else if (m->body_case == GANTRY__AGENT_MESSAGE__BODY_CONSOLE_DATA) {
		text.data = m->console_data->data;
		rpc_send_message(conn, FRAME_AGENT, &out.base);
	}
	gantry__agent_message__free_unpacked(m, NULL);
}
static void agent_close(struct rpc_conn *conn, int rc, const struct err *err, void *data) { w.agent_conn = NULL; }
static void agent_accept(struct rpc_conn *conn, void *data)
{
	static const struct rpc_callbacks callbacks = {.on_frame = agent_frame, .on_close = agent_close};

	w.agent_conn = conn;
	rpc_conn_set_callbacks(conn, &callbacks, NULL);
}

static void add_domain(const char *name, const char *uuid, const char *host)
{
	Gantry__Domain *d = PB_NEW(Gantry__Domain, gantry__domain__init);

	d->spec = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init);
	pb_set_string(&d->spec->name, name);
	pb_set_string(&d->spec->uuid, uuid);
	pb_set_string(&d->host, host);
	d->id = (uint32_t)w.model.state->n_domains + 1;
	PB_APPEND(w.model.state, domains, d);
}

static void type(struct client *c, const char *text)
{
	Gantry__ConsoleData data = GANTRY__CONSOLE_DATA__INIT;

	data.data = (ProtobufCBinaryData){.data = (uint8_t *)text, .len = strlen(text)};
	ASK(c, 5, CONSOLE_DATA, console_data, &data);
}

static void test_console_is_relayed(void **state)
{
	Gantry__ConsoleOpen open = GANTRY__CONSOLE_OPEN__INIT;
	Gantry__CtlMessage *a;
	struct err err = {0};
	struct client c;

	add_domain("web", "aaaaaaaa-0000-0000-0000-000000000001", "hostA");
	assert_int_equal(rpc_listen_unix(&w.loop, w.path[P_AGENT], 1u << FRAME_AGENT, agent_accept, NULL, &w.agent, &err), 0);
	open_unix(&c);
	open.domain = (char *)"web";
	ASK(&c, 5, CONSOLE_OPEN, console_open, &open);
	a = answer(&c);
	assert_int_equal(a->id, 5);
	/* The agent is asked by the uuid. */
	assert_memory_equal(a->console_data->data.data, "aaaaaaaa-0000", 13);
	ASK(&c, 6, CONSOLE_OPEN, console_open, &open);
	EXPECT_ERROR(&c, EXISTS, "open already");
	type(&c, "ls\n");
	assert_memory_equal(answer(&c)->console_data->data.data, "ls\n", 3);
	type(&c, "q");
	a = answer(&c);
	assert_int_equal(a->body_case, GANTRY__CTL_MESSAGE__BODY_CONSOLE_CLOSE);
	assert_string_equal(a->console_close->reason, "the guest ended");
	UNTIL(!w.agent_conn);
	/* Another one on the same connection, and this time the client goes. */
	ASK(&c, 7, CONSOLE_OPEN, console_open, &open);
	assert_int_equal(answer(&c)->body_case, GANTRY__CTL_MESSAGE__BODY_CONSOLE_DATA);
	drop_client(&c);
	UNTIL(!w.agent_conn);
}

static void test_console_that_cannot_be(void **state)
{
	Gantry__ConsoleOpen open = GANTRY__CONSOLE_OPEN__INIT;
	struct client c;

	add_domain("web", "aaaaaaaa-0000-0000-0000-000000000001", "hostA");
	add_domain("off", "aaaaaaaa-0000-0000-0000-000000000002", "");
	open_unix(&c);
	open.domain = (char *)"nope";
	ASK(&c, 1, CONSOLE_OPEN, console_open, &open);
	EXPECT_ERROR(&c, NO_SUCH, "nope");
	open.domain = (char *)"off";
	ASK(&c, 2, CONSOLE_OPEN, console_open, &open);
	EXPECT_ERROR(&c, UNAVAILABLE, "does not run");
	open.domain = (char *)"web";
	ASK(&c, 3, CONSOLE_OPEN, console_open, &open);
	EXPECT_ERROR(&c, UNAVAILABLE, "agent");
	drop_client(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
		T(test_join_is_let_in), T(test_join_is_refused), T(test_join_without_the_ca_key),
		T(test_tokens_are_kept_as_hashes), T(test_console_is_relayed), T(test_console_that_cannot_be),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
