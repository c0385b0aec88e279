/* help, completion, version. */
#include <errno.h>
#include <string.h>

#include "clusterctl/cmd.h"
#include "proto/model.pb-c.h"

static int print_buf(struct buf *text)
{
	fputs(buf_str(text), stdout);
	buf_free(text);
	return 0;
}

int cmd_help(struct invocation *inv)
{
	const struct command *command;
	struct buf text = {0};
	size_t used;

	if (inv->n_args == 0) {
		command_help_all(&text);
		return print_buf(&text);
	}
	int rc = command_find(inv->args, inv->n_args, &command, &used, &inv->err);
	if (rc < 0)
		return rc;
	command_help_one(command, &text);
	return print_buf(&text);
}

int cmd_completion(struct invocation *inv)
{
	struct buf text = {0};

	if (strcmp(inv->args[0], "bash") != 0)
		return err_set_status(&inv->err, EINVAL, GANTRY__STATUS__STATUS_USAGE, "there is completion for bash only, not for '%.40s'",
				      inv->args[0]);
	completion_bash(&text);
	return print_buf(&text);
}

int cmd_version(struct invocation *inv)
{
	if (inv->format == OUTPUT_JSON || inv->format == OUTPUT_YAML)
		return output_object(inv->format, json_pack("{s:s}", "version", GANTRY_VERSION), &inv->err);
	printf("clusterctl %s\n", GANTRY_VERSION);
	return 0;
}
