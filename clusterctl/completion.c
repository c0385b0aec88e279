/* Completion for bash. The script knows words and options by heart, and asks clusterctl itself for names. */
#include <string.h>

#include "clusterctl/command.h"

static const char *kind_function(enum arg_kind kind)
{
	switch (kind) {
	case ARG_FILE:
		return "_clusterctl_files";
	case ARG_DOMAIN:
		return "_clusterctl_ask list";
	case ARG_HOST:
		return "_clusterctl_ask host list";
	case ARG_POOL:
		return "_clusterctl_ask pool list";
	case ARG_VOLUME:
		return "_clusterctl_ask vol list";
	case ARG_TASK:
		return "_clusterctl_ask task list";
	case ARG_COMMAND:
		return "_clusterctl_words \"$_clusterctl_commands\"";
	case ARG_READY:
		return "_clusterctl_words \"running agent time port:\"";
	case ARG_ISOLATION:
		return "_clusterctl_words \"stop leave\"";
	case ARG_YES_NO:
		return "_clusterctl_words \"yes no\"";
	case ARG_SETTING:
		return "_clusterctl_words \"fence-share=\"";
	case ARG_FORMAT:
		return "_clusterctl_words \"table json yaml name\"";
	default:
		return "COMPREPLY=()";
	}
}

static void append_names(struct buf *out, const struct command_option *options, size_t max, bool valued)
{
	for (size_t i = 0; i < max && options[i].name; i++)
		if (!valued || options[i].value)
			buf_printf(out, "%s--%s", out->len ? " " : "", options[i].name);
}

/* The distinct first words, or the second words below a first. */
static void append_words(struct buf *out, const char *below)
{
	size_t below_len = below ? strcspn(below, " ") : 0;
	const char *last = "";
	size_t last_len = 0;

	for (size_t i = 0; i < command_table_n; i++) {
		const char *name = command_table[i].name;
		size_t len = strcspn(name, " ");
		if (below != NULL) {
			if (len != below_len || strncmp(name, below, len) != 0)
				continue;
			buf_printf(out, "%s%s", out->len ? " " : "", name + len + 1);
		} else if (len != last_len || strncmp(name, last, len) != 0) {
			buf_printf(out, "%s%.*s", out->len ? " " : "", (int)len, name);
			last = name;
			last_len = len;
		}
	}
}

static void append_command(struct buf *out, const struct command *c)
{
	struct buf names = {0};

	append_names(&names, c->options, COMMAND_OPTIONS_MAX, false);
	append_names(&names, command_globals, SIZE_MAX, false);
	buf_printf(out, "\t\"%s\")\n\t\toptions=\"%s\"\n", c->name, buf_str(&names));
	buf_free(&names);
	for (size_t i = 0; i < COMMAND_OPTIONS_MAX && c->options[i].name; i++)
		if (c->options[i].value != NULL)
			buf_printf(out, "\t\t[ \"$previous\" = --%s ] && { %s; return; }\n", c->options[i].name,
				   kind_function(c->options[i].kind));
	buf_printf(out, "\t\tcase $n in\n");
	for (size_t i = 0; i < 3; i++)
		buf_printf(out, "\t\t%s) argument='%s' ;;\n", i == 0 ? "0" : i == 1 ? "1" : "*", kind_function(c->kinds[i]));
	buf_printf(out, "\t\tesac ;;\n");
}

static void append_groups(struct buf *out)
{
	const char *last = "";

	buf_printf(out, "\tcase $verb in\n");
	for (size_t i = 0; i < command_table_n; i++) {
		const char *name = command_table[i].name;
		size_t len = strcspn(name, " ");
		struct buf words = {0};
		if (name[len] == '\0' || strncmp(name, last, len + 1) == 0)
			continue;
		last = name;
		append_words(&words, name);
		buf_printf(out, "\t%.*s) _clusterctl_words \"%s\"; return ;;\n", (int)len, name, buf_str(&words));
		buf_free(&words);
	}
	buf_printf(out, "\tesac\n");
}

static const char helpers[] =
	"_clusterctl_words() { COMPREPLY=($(compgen -W \"$1\" -- \"$current\")); }\n"
	"_clusterctl_ask() { _clusterctl_words \"$(clusterctl \"$@\" -o name --timeout 2 2>/dev/null)\"; }\n"
	"_clusterctl_files() { compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$current\")); }\n";

/* Finds the command's words and how many arguments stand in front of the cursor. */
static const char scan[] =
	"_clusterctl() {\n"
	"\tlocal current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} verb= options= argument= n=-1 i word skip=\n"
	"\tCOMPREPLY=()\n"
	"\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	"\t\tword=${COMP_WORDS[i]}\n"
	"\t\tif [ -n \"$skip\" ]; then skip=; continue; fi\n"
	"\t\tcase $word in\n"
	"\t\t-*=*) continue ;;\n"
	"\t\t-*) [[ \" $_clusterctl_valued \" == *\" $word \"* ]] && skip=1; continue ;;\n"
	"\t\tesac\n"
	"\t\tif [ -z \"$verb\" ]; then verb=$word; [[ \" $_clusterctl_groups \" == *\" $word \"* ]] || n=0\n"
	"\t\telif [ $n -lt 0 ]; then verb=\"$verb $word\"; n=0\n"
	"\t\telse n=$((n + 1)); fi\n"
	"\tdone\n";

static void append_lists(struct buf *out)
{
	struct buf words = {0}, groups = {0}, valued = {0};
	const char *last = "";

	append_words(&words, NULL);
	append_names(&valued, command_globals, SIZE_MAX, true);
	buf_printf(&valued, " -o");
	for (size_t i = 0; i < command_table_n; i++) {
		const char *name = command_table[i].name;
		size_t len = strcspn(name, " ");
		append_names(&valued, command_table[i].options, COMMAND_OPTIONS_MAX, true);
		if (name[len] != '\0' && strncmp(name, last, len + 1) != 0) {
			buf_printf(&groups, "%s%.*s", groups.len ? " " : "", (int)len, name);
			last = name;
		}
	}
	buf_printf(out, "_clusterctl_commands=\"%s\"\n_clusterctl_groups=\"%s\"\n_clusterctl_valued=\"%s\"\n", buf_str(&words),
		   buf_str(&groups), buf_str(&valued));
	buf_free(&words);
	buf_free(&groups);
	buf_free(&valued);
}

void completion_bash(struct buf *out)
{
	struct buf names = {0};

	buf_printf(out, "# bash completion for clusterctl %s\n", GANTRY_VERSION);
	append_lists(out);
	buf_printf(out, "%s%s", helpers, scan);
	append_names(&names, command_globals, SIZE_MAX, false);
	buf_printf(out, "\tif [ -z \"$verb\" ]; then _clusterctl_words \"$_clusterctl_commands %s\"; return; fi\n", buf_str(&names));
	buf_free(&names);
	buf_printf(out, "\tif [ $n -lt 0 ]; then\n");
	append_groups(out);
	buf_printf(out, "\tfi\n\tcase $verb in\n");
	for (size_t i = 0; i < command_table_n; i++)
		append_command(out, &command_table[i]);
	buf_printf(out, "\tesac\n\tcase $previous in\n");
	buf_printf(out, "\t-o|--output) %s; return ;;\n\t--timeout) return ;;\n\t--socket) %s; return ;;\n", kind_function(ARG_FORMAT),
		   kind_function(ARG_FILE));
	buf_printf(out, "\tesac\n\tcase $current in\n\t-*) _clusterctl_words \"$options\" ;;\n"
			"\t*) [ -n \"$argument\" ] && eval \"$argument\" ;;\n\tesac\n}\n"
			"complete -F _clusterctl clusterctl\n");
}
