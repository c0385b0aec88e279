/* What counts as a guest agent's answer, and what a guest that floods or lies comes to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "hypervisor/qga_parser.h"

static const struct {
	const char *text;
	bool answers;
} cases[] = {
    {"\xff{\"return\": 41}\n", true},
    {"\xff{\"return\": 42}\r\n", true},
    {"{\"return\": 42}\n", true}, /* guest-sync's answer has no delimiter */
    {"half a line \xff{\"return\": 42}\n", true},
    {"\xff{\"return\": 40}\n", false},
    {"\xff{\"return\": 43}\n", false},
    {"\xff{\"return\": 42}", false}, /* not ended */
    {"\xff{\"return\": \"42\"}\n", false},
    {"\xff{\"return\": 42.0}\n", false},
    {"\xff{\"return\": -42}\n", false},
    {"\xff[42]\n", false},
    {"\xff{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n", false},
    {"\n\n\n", false},
};

static void test_answers(void **state)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct qga_parser whole, bytes;
		bool by_bytes = false;

		qga_parser_init(&whole);
		qga_parser_init(&bytes);
		for (const char *c = cases[i].text; *c; c++)
			by_bytes |= qga_parser_feed(&bytes, c, 1, 41, 42);
		if (qga_parser_feed(&whole, cases[i].text, strlen(cases[i].text), 41, 42) != cases[i].answers || by_bytes != cases[i].answers)
			fail_msg("%zu: %s", i, cases[i].text);
	}
}

static void test_a_flood_is_dropped(void **state)
{
	static const char answer[] = "{\"return\": 1}\n";
	struct qga_parser p;

	qga_parser_init(&p);
	for (size_t i = 0; i < 100u * LIMIT_QGA_LINE_BYTES; i++) {
		assert_false(qga_parser_feed(&p, "[", 1, 1, 1));
		assert_true(p.len <= LIMIT_QGA_LINE_BYTES);
	}
	assert_false(qga_parser_feed(&p, answer, strlen(answer), 1, 1)); /* the end of the flood's own line */
	assert_true(qga_parser_feed(&p, answer, strlen(answer), 1, 1));
}

static void test_the_question(void **state)
{
	char text[QGA_QUESTION_MAX];
	size_t len = qga_question(text, sizeof(text), UINT32_MAX);

	assert_int_equal(len, strlen(text));
	assert_string_equal(text, "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":4294967295}}\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_answers),
	    cmocka_unit_test(test_a_flood_is_dropped),
	    cmocka_unit_test(test_the_question),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
