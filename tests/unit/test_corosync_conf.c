/* corosync.conf as it is rendered, and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nodes_and_token),
		cmocka_unit_test(test_braces_have_lines_of_their_own),
		cmocka_unit_test(test_short_token_has_ping_settings),
		cmocka_unit_test(test_refusals_append_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
