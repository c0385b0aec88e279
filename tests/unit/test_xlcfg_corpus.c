/* Whole xl.cfg files: xlcfg/NAME.cfg is read, and what it comes to (specification and warnings, or the error) is
 * compared with xlcfg/NAME.json. With XLCFG_CORPUS_WRITE set the .json files are written anew, to be looked at. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>
#include <cmocka.h>

#include "hypervisor/spec.h"
#include "hypervisor/xlcfg.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pbjson.h"

#define FILE_MAX 65536

static char *read_file(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = mem_alloc(FILE_MAX + 1);

	if (!f)
		fail_msg("%s cannot be read", path);
	text[fread(text, 1, FILE_MAX, f)] = '\0';
	fclose(f);
	return text;
}

static json_t *outcome(const char *name, const char *text)
{
	static const uint8_t zeros[64];
	struct xlcfg_warnings warnings = {0};
	Gantry__DomainSpec *spec = NULL;
	struct err err = {0};
	json_t *result = json_object();

	int rc = xlcfg_parse(name, text, strlen(text), NULL, 0, &spec, &warnings, &err);
	if (rc == 0) {
		spec_complete(spec, zeros);
		rc = spec_check(spec, &err);
		json_object_set_new(result, "spec", pbjson_from_message(&spec->base, false));
		gantry__domain_spec__free_unpacked(spec, NULL);
	}
	if (rc < 0)
		json_object_set_new(result, "error", json_string(err.text));
	json_t *lines = json_array();
	for (size_t i = 0; i < warnings.n; i++)
		json_array_append_new(lines, json_string(warnings.lines[i]));
	json_object_set_new(result, "warnings", lines);
	xlcfg_warnings_free(&warnings);
	return result;
}

static void check_file(const char *name)
{
	_cleanup_free_ char *cfg = str_printf("%s/%s", XLCFG_CORPUS, name);
	_cleanup_free_ char *json = str_printf("%s/%.*s.json", XLCFG_CORPUS, (int)strlen(name) - 4, name);
	_cleanup_free_ char *text = read_file(cfg);
	json_t *got = outcome(name, text);

	if (getenv("XLCFG_CORPUS_WRITE"))
		json_dump_file(got, json, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	_cleanup_free_ char *want_text = read_file(json);
	json_t *want = json_loads(want_text, 0, NULL);
	if (!want)
		fail_msg("%s is not JSON", json);
	if (!json_equal(got, want)) {
		_cleanup_free_ char *dump = json_dumps(got, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
		fail_msg("%s comes to:\n%s", name, dump);
	}
	json_decref(got);
	json_decref(want);
}

static void test_corpus(void **state)
{
	DIR *dir = opendir(XLCFG_CORPUS);
	int n = 0;

	assert_non_null(dir);
	for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
		size_t len = strlen(entry->d_name);
		if (len < 5 || strcmp(entry->d_name + len - 4, ".cfg") != 0)
			continue;
		check_file(entry->d_name);
		n++;
	}
	closedir(dir);
	assert_true(n >= 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_corpus)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
