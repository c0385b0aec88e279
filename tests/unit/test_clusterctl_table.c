/* The table of commands: prefixes, options, completion; and sizes, times, YAML. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "clusterctl/command.h"
#include "clusterctl/units.h"
#include "clusterctl/yaml_emit.h"
#include "lib/cleanup.h"
#include "proto/model.pb-c.h"

static void test_prefixes(void **state)
{
	static const struct {
		const char *words[2];
		const char *want; /* the command's name, or the error */
	} rows[] = {
		{{"list"}, "list"},
		{{"l"}, "list"},
		{{"mig"}, "migrate"},
		{{"pause"}, "pause"},
		{{"pa"}, "pause"},
		{{"p"}, "error: 'p' can be: pause, pool"},
		{{"s"}, "error: 's' can be: start, show, shutdown"},
		{{"sh"}, "error: 'sh' can be: show, shutdown"},
		{{"vol", "c"}, "vol create"},
		{{"volume", "c"}, "vol create"},
		{{"vo", "cr"}, "vol create"},
		{{"v", "cr"}, "error: 'v' can be: vol, version"},
		{{"vol"}, "error: 'vol' needs one of: create, list, delete"},
		{{"vol", "x"}, "error: 'vol x' is none of: create, list, delete"},
		{{"cluster", "init"}, "cluster init"},
		{{"clu", "i"}, "cluster init"},
		{{"list", "web1"}, "list"},
		{{"frob"}, "error: there is no command 'frob'; see 'clusterctl help'"},
		{{""}, "error: there is no command ''; see 'clusterctl help'"},
		{{"listing"}, "error: there is no command 'listing'; see 'clusterctl help'"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct command *command = NULL;
		struct err err = {0};
		size_t used = 0;
		int rc = command_find(rows[i].words, rows[i].words[1] ? 2 : 1, &command, &used, &err);
		_cleanup_free_ char *got = rc < 0 ? str_printf("error: %s", err.text) : str_dup(command->name);
		assert_string_equal(got, rows[i].want);
		assert_int_equal(used, rc < 0 ? 0 : strchr(command->name, ' ') ? 2 : 1);
		assert_int_equal(err.status, rc < 0 ? GANTRY__STATUS__STATUS_USAGE : 0);
	}
}

/* No name is a prefix trap, no group is torn apart, and no letter or option has two meanings. */
static void test_table_is_sound(void **state)
{
	for (size_t i = 0; i < command_table_n; i++) {
		const struct command *c = &command_table[i], *found = NULL;
		char first[32] = "", *second;
		size_t used;

		snprintf(first, sizeof(first), "%s", c->name);
		second = strchr(first, ' ');
		if (second)
			*second++ = '\0';
		const char *const words[] = {first, second};
		assert_int_equal(command_find(words, second ? 2 : 1, &found, &used, NULL), 0);
		assert_ptr_equal(found, c);
		assert_non_null(c->run);
		assert_true(c->min_args <= c->max_args);
		assert_true(isupper((unsigned char)c->summary[0]));
		assert_int_not_equal(c->summary[strlen(c->summary) - 1], '.');
		for (size_t j = 0; j < COMMAND_OPTIONS_MAX && c->options[j].name; j++)
			for (size_t k = 0; k < j; k++) {
				assert_string_not_equal(c->options[j].name, c->options[k].name);
				assert_true(!c->options[j].letter || c->options[j].letter != c->options[k].letter);
			}
	}
}

static int parse(struct invocation *inv, struct err *err, char *const *argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	*inv = (struct invocation){0};
	return command_parse(argc, argv, inv, err);
}

#define PARSE(inv, err, ...) parse(inv, err, (char *const[]){__VA_ARGS__, NULL})

static void test_options(void **state)
{
	struct invocation inv;
	struct err err = {0};

	assert_int_equal(PARSE(&inv, &err, "--host", "10.0.0.1", "-ojson", "create", "--host=hostB", "f", "vcpus=2", "--no-ha", "-N", "--timeout", "7"), 0);
	assert_string_equal(inv.command->name, "create");
	assert_string_equal(inv.host, "10.0.0.1");
	assert_string_equal(invocation_option(&inv, "host"), "hostB");
	assert_string_equal(invocation_option(&inv, "no-ha"), "");
	assert_string_equal(invocation_option(&inv, "dry-run"), "");
	assert_null(invocation_option(&inv, "no-start"));
	assert_int_equal(inv.format, OUTPUT_JSON);
	assert_int_equal(inv.timeout_s, 7);
	assert_int_equal(inv.n_args, 2);
	assert_string_equal(inv.args[1], "vcpus=2");
	invocation_clear(&inv);

	assert_int_equal(PARSE(&inv, &err, "list", "--", "--odd"), 0);
	assert_string_equal(inv.args[0], "--odd");
	invocation_clear(&inv);

	/* Only commands without a host of their own take the global one behind them. */
	assert_int_equal(PARSE(&inv, &err, "list", "--host", "10.0.0.1"), 0);
	assert_string_equal(inv.host, "10.0.0.1");
	invocation_clear(&inv);

	assert_int_equal(PARSE(&inv, &err, "create", "--help"), 0);
	assert_true(inv.help);
	invocation_clear(&inv);
	assert_int_equal(PARSE(&inv, &err, "--version"), 0);
	assert_true(inv.version);
	invocation_clear(&inv);
}

static void test_option_errors(void **state)
{
	static char *const rows[][5] = {
		{"list", "--foo", NULL, NULL, "list: option '--foo' is unknown; see 'clusterctl help list'"},
		{"--foo", "list", NULL, NULL, "option '--foo' is unknown; see 'clusterctl help'"},
		{"migrate", "a", "b", "--bandwidth", "option --bandwidth needs a value: --bandwidth RATE"},
		{"create", "f", "--no-ha=1", NULL, "option '--no-ha=1': --no-ha takes no value"},
		{"create", NULL, NULL, NULL, "create: an argument is missing; it is used as 'clusterctl create FILE [KEY=VALUE...]'"},
		{"list", "a", "b", NULL, "list: too many arguments; it is used as 'clusterctl list [DOMAIN]'"},
		{"-o", "xml", "list", NULL, "output format 'xml' is unknown; there are table, json, yaml, name"},
		{"--timeout", "0", "list", NULL, "--timeout '0' has to be a number from 1 to 1000000"},
		{NULL, NULL, NULL, NULL, "a command is missing; see 'clusterctl help'"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char *const argv[] = {rows[i][0], rows[i][1], rows[i][2], rows[i][3], NULL};
		struct invocation inv;
		struct err err = {0};
		assert_int_equal(parse(&inv, &err, argv), -EINVAL);
		assert_int_equal(err.status, GANTRY__STATUS__STATUS_USAGE);
		assert_string_equal(err.text, rows[i][4]);
		invocation_clear(&inv);
	}
}

/* The script knows every command and option, and bash can read it. */
static void test_completion(void **state)
{
	struct buf text = {0};
	FILE *bash = popen("bash -n", "w");

	completion_bash(&text);
	for (size_t i = 0; i < command_table_n; i++) {
		_cleanup_free_ char *label = str_printf("\t\"%s\")\n\t\toptions=\"", command_table[i].name);
		const char *at = strstr(buf_str(&text), label);
		assert_non_null(at);
		_cleanup_free_ char *line = str_printf("%.*s", (int)strcspn(at + strlen(label), "\n"), at + strlen(label));
		for (size_t j = 0; j < COMMAND_OPTIONS_MAX && command_table[i].options[j].name; j++)
			assert_non_null(strstr(line, command_table[i].options[j].name));
	}
	assert_non_null(bash);
	assert_int_equal(fwrite(text.data, 1, text.len, bash), text.len);
	assert_int_equal(pclose(bash), 0);
	buf_free(&text);
}

static void test_help_names_everything(void **state)
{
	struct buf all = {0};

	command_help_all(&all);
	for (size_t i = 0; i < command_table_n; i++) {
		struct buf one = {0};
		assert_non_null(strstr(buf_str(&all), command_table[i].summary));
		command_help_one(&command_table[i], &one);
		assert_non_null(strstr(buf_str(&one), command_table[i].arguments));
		for (size_t j = 0; j < COMMAND_OPTIONS_MAX && command_table[i].options[j].name; j++)
			assert_non_null(strstr(buf_str(&one), command_table[i].options[j].help));
		buf_free(&one);
	}
	buf_free(&all);
}

/* A man page that lacks a command or an option is wrong the day it is read. */
static void test_man_page_names_everything(void **state)
{
	char text[65536];
	FILE *f = fopen(CLUSTERCTL_MAN, "r");

	assert_non_null(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	for (size_t i = 0; i < command_table_n; i++) {
		_cleanup_free_ char *name = str_printf("*%s*", command_table[i].name);
		if (!strstr(text, name))
			fail_msg("%s is not in the man page", name);
		for (size_t j = 0; j < COMMAND_OPTIONS_MAX && command_table[i].options[j].name; j++) {
			_cleanup_free_ char *option = str_printf("*--%s*", command_table[i].options[j].name);
			if (!strstr(text, option))
				fail_msg("%s of %s is not in the man page", option, name);
		}
	}
	for (size_t i = 0; command_globals[i].name; i++)
		assert_non_null(strstr(text, command_globals[i].name));
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		int rate;
		bool ok;
		uint64_t want;
	} rows[] = {
		{"0", 0, true, 0},	       {"4096", 0, true, 4096},	      {"4096B", 0, true, 4096},	 {"1K", 0, true, 1024},
		{"10G", 0, true, 10ull << 30}, {"10GiB", 0, true, 10ull << 30}, {"1T", 0, true, 1ull << 40}, {"10GB", 0, true, 10ull << 30},
		{"100M/s", 1, true, 100 << 20}, {"100MiB/s", 1, true, 100 << 20}, {"100M/s", 0, false, 0},	 {"G", 0, false, 0},
		{"1.5G", 0, false, 0},	       {"-1", 0, false, 0},	      {"10g", 0, false, 0},	 {"10G ", 0, false, 0},
		{"99999999999999999999", 0, false, 0}, {"18446744073709551615", 0, true, UINT64_MAX}, {"16384P", 0, false, 0},
		{"10GiBB", 0, false, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint64_t got = 7;
		struct err err = {0};
		int rc = units_parse_bytes("the size", rows[i].text, rows[i].rate, &got, &err);
		assert_int_equal(rc, rows[i].ok ? 0 : -EINVAL);
		assert_int_equal(got, rows[i].ok ? rows[i].want : 7);
		if (rc < 0)
			assert_non_null(strstr(err.text, rows[i].text));
	}
}

static void test_formats(void **state)
{
	static const struct {
		uint64_t value;
		const char *bytes, *ms;
	} rows[] = {
		{0, "0 B", "0 ms"},
		{999, "999 B", "999 ms"},
		{1536, "1.5 KiB", "1.5 s"},
		{61000, "59.6 KiB", "1 min 1 s"},
		{3 << 20, "3 MiB", "52 min 25 s"},
		{90061000, "85.9 MiB", "1 d 1 h"},
		{3ull << 30, "3 GiB", "37 d 6 h"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		_cleanup_free_ char *bytes = units_format_bytes(rows[i].value), *ms = units_format_ms(rows[i].value);
		assert_string_equal(bytes, rows[i].bytes);
		assert_string_equal(ms, rows[i].ms);
	}
}

static void test_yaml(void **state)
{
	json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:i, s:b, s:n, s:[s,{s:s}], s:[], s:s}", "name", "web1", "truth", "yes", "number", "12",
				 "time", "10:20", "n", 5, "b", 1, "none", "list", "a", "k", "x: y", "empty", "text", "a\n# b");
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	assert_int_equal(yaml_emit(json, out), 0);
	fclose(out);
	assert_string_equal(text, "name: web1\ntruth: \"yes\"\nnumber: \"12\"\ntime: \"10:20\"\n\"n\": 5\nb: true\nnone: null\n"
				  "list:\n- a\n- k: \"x: y\"\nempty: []\ntext: \"a\\n# b\"\n");
	free(text);
	json_decref(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prefixes),	cmocka_unit_test(test_table_is_sound),
		cmocka_unit_test(test_options),		cmocka_unit_test(test_option_errors),
		cmocka_unit_test(test_completion),	cmocka_unit_test(test_help_names_everything),
		cmocka_unit_test(test_man_page_names_everything),
		cmocka_unit_test(test_sizes),		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_yaml),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
