/* corosync.conf as it is rendered, and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/corosync_conf.h"

static const struct corosync_conf_node two[] = {{"hostA", "10.79.0.1", 1}, {"hostB", "fd00::2", 2}};

static int render(const char *name, uint32_t token_ms, const struct corosync_conf_node *nodes, size_t n, struct buf *out)
{
	struct corosync_conf c = {.cluster_name = name, .token_ms = token_ms, .nodes = nodes, .n_nodes = n};

	return corosync_conf_render(&c, out);
}

static void test_nodes_and_token(void **state)
{
	struct buf out = {0};

	assert_int_equal(render("lab", 0, two, 2, &out), 0);
	const char *text = buf_str(&out);
	assert_non_null(strstr(text, "\tcluster_name: lab\n"));
	assert_non_null(strstr(text, "\ttoken: 1000\n\ttoken_coefficient: 0\n"));
	assert_non_null(strstr(text, "\tnode {\n\t\tring0_addr: 10.79.0.1\n\t\tname: hostA\n\t\tnodeid: 1\n\t}\n"));
	assert_non_null(strstr(text, "\tnode {\n\t\tring0_addr: fd00::2\n\t\tname: hostB\n\t\tnodeid: 2\n\t}\n"));
	assert_null(strstr(text, "knet_ping"));
	buf_free(&out);
}

/* corosync reads a brace only at the end of its line. */
static void test_braces_have_lines_of_their_own(void **state)
{
	struct buf out = {0};
	int depth = 0;

	assert_int_equal(render("lab", 300, two, 2, &out), 0);
	for (char *save, *line = strtok_r((char *)buf_str(&out), "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *open = strchr(line, '{'), *close = strchr(line, '}');
		if (open != NULL) {
			assert_int_equal(open[1], '\0');
			depth++;
		}
		if (close != NULL) {
			assert_int_equal(strspn(line, "\t"), close - line);
			assert_int_equal(close[1], '\0');
			depth--;
		}
		assert_true(depth >= 0);
	}
	assert_int_equal(depth, 0);
	buf_free(&out);
}

static void test_short_token_has_ping_settings(void **state)
{
	struct buf at = {0}, above = {0};

	assert_int_equal(render("lab", 400, two, 2, &at), 0);
	assert_non_null(strstr(buf_str(&at), "\tinterface {\n\t\tlinknumber: 0\n\t\tknet_ping_interval: 250\n"
					     "\t\tknet_ping_timeout: 1000\n\t}\n"));
	assert_int_equal(render("lab", 401, two, 2, &above), 0);
	assert_null(strstr(buf_str(&above), "interface"));
	buf_free(&at);
	buf_free(&above);
}

static void test_refusals_append_nothing(void **state)
{
	static const struct corosync_conf_node no_id[] = {{"hostA", "10.79.0.1", 0}}, brace[] = {{"a}", "10.79.0.1", 1}},
					       newline[] = {{"a", "10.0.0.1\nx: y", 1}}, no_name[] = {{NULL, "10.0.0.1", 1}};
	struct buf out = {0};

	assert_int_equal(render("lab", 1000, two, 0, &out), -EINVAL);
	assert_int_equal(render("la b", 1000, two, 2, &out), -EINVAL);
	assert_int_equal(render("", 1000, two, 2, &out), -EINVAL);
	assert_int_equal(render("lab", 199, two, 2, &out), -EINVAL);
	assert_int_equal(render("lab", 60001, two, 2, &out), -EINVAL);
	assert_int_equal(render("lab", 1000, no_id, 1, &out), -EINVAL);
	assert_int_equal(render("lab", 1000, brace, 1, &out), -EINVAL);
	assert_int_equal(render("lab", 1000, newline, 1, &out), -EINVAL);
	assert_int_equal(render("lab", 1000, no_name, 1, &out), -EINVAL);
	assert_int_equal(out.len, 0);
}

static const struct corosync_conf_node three[] = {{"hostA", "10.79.0.1", 1}, {"hostB", "fd00::2", 2}, {"hostC", "10.79.0.3", 3}};

/* corosync is quorate with one of two; with three or one it must not have two_node. */
static void test_two_node_for_exactly_two(void **state)
{
	for (size_t n = 1; n <= 3; n++) {
		struct buf out = {0};

		assert_int_equal(render("lab", 0, three, n, &out), 0);
		assert_int_equal(strstr(buf_str(&out), "\ttwo_node: 1\n\twait_for_all: 1\n}") != NULL, n == 2);
		buf_free(&out);
	}
}

static char *update(const struct corosync_conf_node *nodes, size_t n, const char *old)
{
	struct corosync_conf c = {.nodes = nodes, .n_nodes = n};
	struct buf out = {0};
	char *text;

	if (corosync_conf_update(&c, old, &out) < 0) {
		assert_int_equal(out.len, 0);
		buf_free(&out);
		return NULL;
	}
	text = str_dup(buf_str(&out));
	buf_free(&out);
	return text;
}

/* From one to three hosts and back, each file from the one before: as if it had been rendered. */
static void test_an_update_is_what_a_new_file_would_be(void **state)
{
	static const size_t steps[] = {1, 1, 2, 3, 3, 2, 1};
	struct buf first = {0};
	char *text;

	assert_int_equal(render("lab", 300, three, 1, &first), 0);
	text = str_dup(buf_str(&first));
	buf_free(&first);
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		struct buf want = {0};
		char *next = update(three, steps[i], text);

		assert_int_equal(render("lab", 300, three, steps[i], &want), 0);
		assert_non_null(next);
		assert_string_equal(next, buf_str(&want));
		free(text);
		text = next;
		buf_free(&want);
	}
	free(text);
}

static const char administrators[] =
	"# ours\n"
	"totem {\n  version: 2\n  token: 5000\n  interface {\n    linknumber: 1\n    knet_transport: udp\n  }\n}\n"
	"nodelist {\n  # first\n  node {\n    ring0_addr: 10.79.0.1\n    ring1_addr: 10.80.0.1\n    nodeid: 1\n  }\n"
	"  node {\n    ring0_addr: fd00::2\n    name: hostB\n    quorum_votes: 1\n    nodeid: 2\n  }\n}\n"
	"quorum {\n  provider: corosync_votequorum\n%s  device {\n    model: net\n    votes: 1\n    net {\n      host: 192.0.2.9\n"
	"      algorithm: ffsplit\n    }\n  }\n}\n"
	"system {\n  qb_ipc_type: native\n}\n";

static void file(char *out, size_t size, const char *quorum)
{
	const char *at = strstr(administrators, "%s");

	snprintf(out, size, "%.*s%s%s", (int)(at - administrators), administrators, quorum, at + 2);
}

static void test_an_update_keeps_what_is_not_ours(void **state)
{
	char old[2048];
	char *text;

	file(old, sizeof(old), "");
	text = update(three, 2, old);
	assert_string_equal(text, old);
	free(text);
	text = update(three, 3, old);
	assert_non_null(strstr(text, "    quorum_votes: 1\n    nodeid: 2\n  }\n\tnode {\n\t\tring0_addr: 10.79.0.3\n\t\tname: hostC\n\t\tnodeid: 3\n\t}\n}\n"));
	assert_non_null(strstr(text, "    ring1_addr: 10.80.0.1\n"));
	assert_non_null(strstr(text, "      algorithm: ffsplit\n    }\n  }\n}\nsystem {\n  qb_ipc_type: native\n}\n"));
	assert_non_null(strstr(text, "  interface {\n    linknumber: 1\n"));
	free(text);
	/* hostB is gone, and hostA has another address: its node is written anew. */
	const struct corosync_conf_node moved[] = {{"hostA", "10.79.0.9", 1}};
	text = update(moved, 1, old);
	assert_null(strstr(text, "hostB"));
	assert_null(strstr(text, "10.79.0.1\n"));
	assert_non_null(strstr(text, "\t\tring0_addr: 10.79.0.9\n"));
	assert_non_null(strstr(text, "  # first\n"));
	free(text);
}

/* votequorum takes either: a device that was added to two hosts ends two_node. */
static void test_a_device_excludes_two_node(void **state)
{
	char old[2048], want[2048];
	char *text;

	file(old, sizeof(old), "  two_node: 1\n  wait_for_all: 1\n");
	file(want, sizeof(want), "");
	text = update(three, 2, old);
	assert_string_equal(text, want);
	free(text);
	/* Without two_node it is an administrator's. */
	file(old, sizeof(old), "  wait_for_all: 1\n");
	text = update(three, 2, old);
	assert_string_equal(text, old);
	free(text);
}

static void test_an_update_of_poor_files(void **state)
{
	char *text = update(three, 2, "totem {\n\tversion: 2\n}");

	assert_non_null(strstr(text, "}\nnodelist {\n\tnode {\n"));
	assert_non_null(strstr(text, "quorum {\n\tprovider: corosync_votequorum\n\ttwo_node: 1\n\twait_for_all: 1\n}\n"));
	free(text);
	assert_null(update(three, 2, "totem {\n"));
	assert_null(update(three, 2, "totem {\n}\n}\n"));
	assert_null(update(three, 2, "}\ntotem {\n"));
	assert_null(update(three, 0, ""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nodes_and_token),
		cmocka_unit_test(test_braces_have_lines_of_their_own),
		cmocka_unit_test(test_short_token_has_ping_settings),
		cmocka_unit_test(test_refusals_append_nothing),
		cmocka_unit_test(test_two_node_for_exactly_two),
		cmocka_unit_test(test_an_update_is_what_a_new_file_would_be),
		cmocka_unit_test(test_an_update_keeps_what_is_not_ours),
		cmocka_unit_test(test_a_device_excludes_two_node),
		cmocka_unit_test(test_an_update_of_poor_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
