#include "clusterctl/output.h"

#include <errno.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clusterctl/yaml_emit.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/model.pb-c.h"

struct output_table {
	enum output_format format;
	const struct output_column *columns;
	size_t n_columns;
	char **names; /* the first cell of each row */
	size_t n_rows;
	struct libscols_table *scols;
	json_t *json;
};

int output_format_parse(const char *text, enum output_format *ret, struct err *err)
{
	static const char *const words[] = {"table", "json", "yaml", "name"};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(words[i], text) == 0) {
			*ret = (enum output_format)i;
			return 0;
		}
	}
	return err_set_status(err, EINVAL, GANTRY__STATUS__STATUS_USAGE,
			      "output format '%.40s' is unknown; there are table, json, yaml, name", text);
}

struct output_table *output_table_new(enum output_format format, const struct output_column *columns, size_t n_columns)
{
	struct output_table *t = mem_alloc(sizeof(*t));

	*t = (struct output_table){.format = format, .columns = columns, .n_columns = n_columns, .json = json_array()};
	t->scols = scols_new_table();
	for (size_t i = 0; i < n_columns; i++)
		scols_table_new_column(t->scols, columns[i].title, 0, columns[i].right ? SCOLS_FL_RIGHT : 0);
	return t;
}

void output_table_row(struct output_table *t, char *const *cells, json_t *item)
{
	struct libscols_line *line = scols_table_new_line(t->scols, NULL);

	t->names = mem_realloc(t->names, (t->n_rows + 1) * sizeof(*t->names));
	t->names[t->n_rows++] = str_dup(cells[0]);
	for (size_t i = 0; i < t->n_columns; i++)
		scols_line_refer_data(line, i, cells[i]); /* freed with the line */
	json_array_append_new(t->json, item);
}

static int print_json(enum output_format format, const json_t *json)
{
	if (format == OUTPUT_YAML)
		return yaml_emit(json, stdout);
	int rc = json_dumpf(json, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	return rc < 0 ? -EIO : 0;
}

static void print_titles(const struct output_table *t)
{
	for (size_t i = 0; i < t->n_columns; i++)
		printf("%s%s", i ? " " : "", t->columns[i].title);
	putchar('\n');
}

static int print_end(int rc, struct err *err)
{
	if (rc < 0 || fflush(stdout) != 0)
		return err_set_status(err, EIO, GANTRY__STATUS__STATUS_FAILED, "the output cannot be written: %s", strerror(errno));
	return 0;
}

int output_table_finish(struct output_table *t, struct err *err)
{
	int rc = 0;

	if (t->format == OUTPUT_NAME) {
		for (size_t i = 0; i < t->n_rows; i++)
			puts(t->names[i]);
	} else if (t->format != OUTPUT_TABLE) {
		rc = print_json(t->format, t->json);
	} else if (t->n_rows == 0) {
		print_titles(t); /* smartcols prints nothing for an empty table */
	} else {
		rc = scols_print_table(t->scols);
	}
	for (size_t i = 0; i < t->n_rows; i++)
		free(t->names[i]);
	free(t->names);
	scols_unref_table(t->scols);
	json_decref(t->json);
	free(t);
	return print_end(rc, err);
}

int output_object(enum output_format format, json_t *item, struct err *err)
{
	int rc = 0;

	if (format == OUTPUT_NAME) {
		const char *name = json_string_value(json_object_get(item, "name"));
		if (name != NULL)
			puts(name);
	} else {
		rc = print_json(format == OUTPUT_TABLE ? OUTPUT_YAML : format, item);
	}
	json_decref(item);
	return print_end(rc, err);
}

void output_record(enum output_format format, json_t *item)
{
	if (format == OUTPUT_YAML) {
		printf("---\n");
		output_object(OUTPUT_YAML, item, NULL);
		return;
	}
	json_dumpf(item, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(item);
}
