#include <string.h>

#include "clusterctl/command.h"

static void append_options(struct buf *out, const struct command_option *options, size_t max)
{
	for (size_t i = 0; i < max && options[i].name; i++) {
		const struct command_option *o = &options[i];
		struct buf left = {0};
		if (o->letter)
			buf_printf(&left, "-%c, ", o->letter);
		buf_printf(&left, "--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
		buf_printf(out, "  %-26s %s\n", buf_str(&left), o->help);
		buf_free(&left);
	}
}

void command_help_all(struct buf *out)
{
	buf_printf(out, "clusterctl drives a cluster of hosts that run domains.\n\n"
			"Usage: clusterctl [OPTIONS] COMMAND [ARGUMENTS] [OPTIONS]\n\nCommands:\n");
	for (size_t i = 0; i < command_table_n; i++)
		buf_printf(out, "  %-16s %s\n", command_table[i].name, command_table[i].summary);
	buf_printf(out, "\nAny unique beginning of a command's words will do: 'clusterctl mig web1 hostB'.\n\nOptions of every command:\n");
	append_options(out, command_globals, SIZE_MAX);
	buf_printf(out, "\nMore about one: clusterctl help COMMAND. All of it: man clusterctl.\n");
}

void command_help_one(const struct command *command, struct buf *out)
{
	buf_printf(out, "Usage: clusterctl %s%s%s%s\n\n%s.\n", command->name, command->arguments[0] ? " " : "", command->arguments,
		   command->options[0].name ? " [OPTIONS]" : "", command->summary);
	if (command->details != NULL)
		buf_printf(out, "\n%s\n", command->details);
	if (command->xl != NULL)
		buf_printf(out, "\nFor users of Xen: xl %s\n", command->xl);
	if (command->options[0].name != NULL) {
		buf_printf(out, "\nOptions:\n");
		append_options(out, command->options, COMMAND_OPTIONS_MAX);
	}
	buf_printf(out, "\nOptions of every command:\n");
	append_options(out, command_globals, SIZE_MAX);
}
