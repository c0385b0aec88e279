/* The commands of clusterctl: one table says names, xl's equivalents, arguments, options and help; dispatch, help and
 * completion are made from it. Everything here is static or belongs to the invocation. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "clusterctl/output.h"
#include "lib/buf.h"
#include "lib/err.h"

#define COMMAND_OPTIONS_MAX 12
#define COMMAND_WORDS_MAX 2

/* What stands in an argument's or an option's place, for completion. */
enum arg_kind { ARG_NONE, ARG_TEXT, ARG_FILE, ARG_DOMAIN, ARG_HOST, ARG_POOL, ARG_VOLUME, ARG_TASK, ARG_COMMAND, ARG_FORMAT,
		ARG_READY, ARG_ISOLATION, ARG_YES_NO, ARG_SETTING };

struct command_option {
	const char *name;    /* without "--" */
	char letter;         /* 0: none */
	const char *value;   /* what stands for its value in the help; NULL: a flag */
	const char *help;
	enum arg_kind kind;  /* of the value */
};

struct invocation;

struct command {
	const char *name;      /* "list", "vol create" */
	const char *xl;        /* the xl or xm command it stands for; NULL: none */
	const char *arguments; /* as the help shows them */
	unsigned min_args, max_args;
	enum arg_kind kinds[3]; /* of the arguments; the last one stands for those that follow */
	const char *summary;
	const char *details;    /* NULL: none */
	struct command_option options[COMMAND_OPTIONS_MAX]; /* up to one without a name */
	/* 0, or a negative errno with inv->err, or the exit status. */
	int (*run)(struct invocation *inv);
};

struct ctl_client;

struct invocation {
	const struct command *command;
	const char **args;
	size_t n_args;
	const char *values[COMMAND_OPTIONS_MAX]; /* of command->options; a flag that is given: "" */
	enum output_format format;
	bool format_given;
	const char *socket, *host;
	uint32_t timeout_s; /* 0: not given */
	bool no_wait, committed, help, version;
	struct ctl_client *client;
	struct err err;
};

extern const struct command command_table[];
extern const size_t command_table_n;
extern const struct command_option command_globals[]; /* up to one without a name */

/* Fills inv from the program's arguments (without argv[0]). -EINVAL with text and status 64. inv->command may stay NULL with help
 * or version. invocation_clear() frees what it took. */
int command_parse(int argc, char *const *argv, struct invocation *inv, struct err *err);
void invocation_clear(struct invocation *inv);
/* The command of these words, each a unique prefix. *ret_used: how many were taken. */
int command_find(const char *const *words, size_t n, const struct command **ret, size_t *ret_used, struct err *err);
/* An option's value, "" for a flag, NULL if it is not given. The name has to be in the table. */
const char *invocation_option(const struct invocation *inv, const char *name);

void command_help_all(struct buf *out);
void command_help_one(const struct command *command, struct buf *out);
/* A script for bash. */
void completion_bash(struct buf *out);

/* ---- for the commands themselves */
/* The connection to clusterd, made when it is first needed. */
int invocation_client(struct invocation *inv, struct ctl_client **ret);
