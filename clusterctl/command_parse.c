#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clusterctl/command.h"
#include "clusterctl/ctl_client.h"
#include "clusterctl/units.h"
#include "lib/cleanup.h"
#include "proto/model.pb-c.h"

#define USAGE GANTRY__STATUS__STATUS_USAGE

/* The n-th word of a command's name: start and length; 0 if there is none. */
static size_t name_word(const struct command *command, size_t n, const char **ret)
{
	const char *p = command->name;

	for (; n > 0 && *p != '\0'; n--) {
		p += strcspn(p, " ");
		p += strspn(p, " ");
	}
	*ret = p;
	return strcspn(p, " ");
}

enum match { MATCH_NO, MATCH_PREFIX, MATCH_EXACT };

static enum match word_match(const struct command *command, size_t n, const char *word)
{
	const char *have;
	size_t len = name_word(command, n, &have), want = strlen(word);

	if (len < want || want == 0 || strncmp(have, word, want) != 0)
		return MATCH_NO;
	return len == want ? MATCH_EXACT : MATCH_PREFIX;
}

/* Of the commands that begin as `like` does (its first n words; NULL: all), the one whose word n is meant. Candidates are
 * listed when there are several or none. */
static const struct command *find_word(const struct command *like, size_t n, const char *word, struct buf *candidates)
{
	const struct command *found = NULL, *last = NULL;
	bool several = false;
	const char *have, *first_have;

	for (size_t i = 0; i < command_table_n; i++) {
		const struct command *c = &command_table[i];
		if (like != NULL) {
			size_t len = name_word(like, 0, &first_have);
			if (name_word(c, 0, &have) != len || strncmp(have, first_have, len) != 0)
				continue;
		}
		enum match match = word_match(c, n, word);
		if (match == MATCH_EXACT)
			return c;
		size_t len = name_word(c, n, &have);
		if (len == 0 || (match == MATCH_NO && like == NULL))
			continue;
		bool same = last != NULL && name_word(last, n, &first_have) == len && strncmp(have, first_have, len) == 0;
		if (!same)
			buf_printf(candidates, "%s%.*s", candidates->len ? ", " : "", (int)len, have);
		if (match == MATCH_PREFIX) {
			several = several || (found != NULL && !same);
			found = found ? found : c;
		}
		last = c;
	}
	return several ? NULL : found;
}

/* A whole word that people write for a shorter one. */
static const char *unalias(const char *word)
{
	return strcmp(word, "volume") == 0 ? "vol" : word;
}

int command_find(const char *const *words, size_t n, const struct command **ret, size_t *ret_used, struct err *err)
{
	struct buf candidates = {0};
	const struct command *first = find_word(NULL, 0, unalias(words[0]), &candidates), *second;
	const char *second_name;
	int rc = 0;

	if (first == NULL) {
		rc = candidates.len ? err_set_status(err, EINVAL, USAGE, "'%.40s' can be: %s", words[0], buf_str(&candidates)) :
				      err_set_status(err, EINVAL, USAGE, "there is no command '%.40s'; see 'clusterctl help'", words[0]);
		buf_free(&candidates);
		return rc;
	}
	buf_free(&candidates);
	if (name_word(first, 1, &second_name) == 0) {
		*ret = first;
		*ret_used = 1;
		return 0;
	}
	const char *group;
	int group_len = (int)name_word(first, 0, &group);
	second = find_word(first, 1, n > 1 ? words[1] : "", &candidates);
	if (second == NULL && n > 1)
		rc = err_set_status(err, EINVAL, USAGE, "'%.*s %.40s' is none of: %s", group_len, group, words[1], buf_str(&candidates));
	else if (second == NULL)
		rc = err_set_status(err, EINVAL, USAGE, "'%.*s' needs one of: %s", group_len, group, buf_str(&candidates));
	buf_free(&candidates);
	if (rc < 0)
		return rc;
	*ret = second;
	*ret_used = 2;
	return 0;
}

const char *invocation_option(const struct invocation *inv, const char *name)
{
	for (size_t i = 0; i < COMMAND_OPTIONS_MAX && inv->command->options[i].name; i++)
		if (strcmp(inv->command->options[i].name, name) == 0)
			return inv->values[i];
	assert(!"an option that is in the table");
	return NULL;
}

/* ---- options */

static int set_global(struct invocation *inv, const struct command_option *option, const char *value, struct err *err)
{
	uint64_t number;
	int rc = 0;

	if (strcmp(option->name, "output") == 0) {
		rc = output_format_parse(value, &inv->format, err);
		inv->format_given = true;
	} else if (strcmp(option->name, "socket") == 0) {
		inv->socket = value;
	} else if (strcmp(option->name, "host") == 0) {
		inv->host = value;
	} else if (strcmp(option->name, "timeout") == 0) {
		rc = units_parse_number("--timeout", value, 1, 1000000, &number, err);
		inv->timeout_s = rc == 0 ? (uint32_t)number : 0;
	} else if (strcmp(option->name, "no-wait") == 0) {
		inv->no_wait = true;
	} else if (strcmp(option->name, "committed") == 0) {
		inv->committed = true;
	} else if (strcmp(option->name, "help") == 0) {
		inv->help = true;
	} else {
		inv->version = true;
	}
	return rc;
}

static const struct command_option *option_find(const struct command_option *options, size_t max, const char *name, size_t len,
						char letter)
{
	for (size_t i = 0; i < max && options[i].name; i++)
		if (letter ? options[i].letter == letter :
			     strlen(options[i].name) == len && strncmp(options[i].name, name, len) == 0)
			return &options[i];
	return NULL;
}

struct parse {
	int argc, at;
	char *const *argv;
	struct invocation *inv;
	struct err *err;
};

/* argv[at] is an option, "--name", "--name=value", "-x", "-x value" or "-xvalue". */
static int take_option(struct parse *p)
{
	const char *arg = p->argv[p->at], *value = NULL;
	bool is_long = arg[1] == '-';
	const char *name = is_long ? arg + 2 : arg + 1;
	size_t len = is_long ? strcspn(name, "=") : 1;
	const struct command *command = p->inv->command;
	const struct command_option *own = NULL, *option;

	if (command != NULL)
		own = option_find(command->options, COMMAND_OPTIONS_MAX, name, len, is_long ? 0 : *name);
	option = own ? own : option_find(command_globals, SIZE_MAX, name, len, is_long ? 0 : *name);
	if (option == NULL)
		return err_set_status(p->err, EINVAL, USAGE, "%s%soption '%.40s' is unknown; see 'clusterctl help%s%s'",
				      command ? command->name : "", command ? ": " : "", arg, command ? " " : "",
				      command ? command->name : "");
	if (name[len] != '\0')
		value = is_long ? name + len + 1 : name + len;
	if (option->value == NULL && value != NULL)
		return err_set_status(p->err, EINVAL, USAGE, "option '%.40s': --%s takes no value", arg, option->name);
	if (option->value != NULL && value == NULL) {
		if (p->at + 1 >= p->argc)
			return err_set_status(p->err, EINVAL, USAGE, "option --%s needs a value: --%s %s", option->name, option->name,
					      option->value);
		value = p->argv[++p->at];
	}
	if (own != NULL) {
		p->inv->values[own - command->options] = value ? value : "";
		return 0;
	}
	return set_global(p->inv, option, value, p->err);
}

static bool is_option(const char *arg)
{
	return arg[0] == '-' && arg[1] != '\0';
}

/* Options in front, then the command's words. */
static int take_command(struct parse *p)
{
	const char *words[COMMAND_WORDS_MAX];
	size_t n = 0, used;
	int rc = 0;

	for (; rc == 0 && p->at < p->argc && is_option(p->argv[p->at]); p->at++)
		rc = take_option(p);
	while (p->at + (int)n < p->argc && n < COMMAND_WORDS_MAX && !is_option(p->argv[p->at + (int)n])) {
		words[n] = p->argv[p->at + (int)n];
		n++;
	}
	if (rc < 0 || n == 0)
		return rc;
	rc = command_find(words, n, &p->inv->command, &used, p->err);
	p->at += rc < 0 ? 0 : (int)used;
	return rc;
}

int command_parse(int argc, char *const *argv, struct invocation *inv, struct err *err)
{
	struct parse p = {.argc = argc, .argv = argv, .inv = inv, .err = err};
	int rc = take_command(&p);
	bool plain = false;

	if (rc < 0 || inv->command == NULL) {
		if (rc == 0 && !inv->help && !inv->version)
			rc = err_set_status(err, EINVAL, USAGE, "a command is missing; see 'clusterctl help'");
		return rc;
	}
	inv->args = mem_alloc(((size_t)argc + 1) * sizeof(*inv->args));
	for (; rc == 0 && p.at < argc; p.at++) {
		if (!plain && strcmp(argv[p.at], "--") == 0)
			plain = true;
		else if (!plain && is_option(argv[p.at]))
			rc = take_option(&p);
		else
			inv->args[inv->n_args++] = argv[p.at];
	}
	if (rc < 0 || inv->help || inv->version)
		return rc;
	if (inv->n_args < inv->command->min_args || inv->n_args > inv->command->max_args)
		return err_set_status(err, EINVAL, USAGE, "%s: %s; it is used as 'clusterctl %s %s'", inv->command->name,
				      inv->n_args < inv->command->min_args ? "an argument is missing" : "too many arguments",
				      inv->command->name, inv->command->arguments);
	return 0;
}

void invocation_clear(struct invocation *inv)
{
	ctl_client_free(inv->client);
	free(inv->args);
	*inv = (struct invocation){0};
}

int invocation_client(struct invocation *inv, struct ctl_client **ret)
{
	struct ctl_options options = {.socket = inv->socket, .host = inv->host, .timeout_ms = inv->timeout_s * 1000};
	int rc = inv->client ? 0 : ctl_client_new(&options, &inv->client, &inv->err);

	if (rc == 0)
		*ret = inv->client;
	return rc;
}
