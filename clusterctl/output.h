/* What clusterctl prints on stdout: a table for people; JSON, YAML or bare names for programs. Cells and JSON values
 * that are handed in belong to the output. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "lib/err.h"

enum output_format { OUTPUT_TABLE, OUTPUT_JSON, OUTPUT_YAML, OUTPUT_NAME };

struct output_column {
	const char *title;
	bool right; /* aligned to the right: numbers */
};

struct output_table;

int output_format_parse(const char *text, enum output_format *ret, struct err *err);
struct output_table *output_table_new(enum output_format format, const struct output_column *columns, size_t n_columns);
/* cells: one heap string a column (the first is the name that OUTPUT_NAME prints); item: what JSON and YAML show. */
void output_table_row(struct output_table *t, char *const *cells, json_t *item);
/* Prints and frees. 0, or -EIO when stdout cannot take it. */
int output_table_finish(struct output_table *t, struct err *err);
/* One object. For OUTPUT_TABLE as `key: value` lines in YAML's form, for OUTPUT_NAME its "name". Takes item over. */
int output_object(enum output_format format, json_t *item, struct err *err);
/* One of several that come one after the other, for OUTPUT_JSON (each a line, so that a reader need not wait for the end) and OUTPUT_YAML (each
 * a document). Takes item over. */
void output_record(enum output_format format, json_t *item);
