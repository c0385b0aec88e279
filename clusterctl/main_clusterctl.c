/* clusterctl: one command, one exit status. Data on stdout, everything else on stderr. */
#include <signal.h>
#include <stdio.h>

#include "clusterctl/cmd.h"

static int fail(const struct err *err, int rc)
{
	fflush(stdout);
	fprintf(stderr, "clusterctl: %s\n", err->text);
	return err_status(err, rc);
}

static int print_help(const struct invocation *inv)
{
	struct buf text = {0};

	if (inv->command != NULL)
		command_help_one(inv->command, &text);
	else
		command_help_all(&text);
	fputs(buf_str(&text), stdout);
	buf_free(&text);
	return 0;
}

int main(int argc, char **argv)
{
	struct invocation inv = {0};
	int status;

	signal(SIGPIPE, SIG_IGN); /* a peer that goes away is an error, not the end */
	int rc = command_parse(argc - 1, argv + 1, &inv, &inv.err);
	if (rc < 0)
		status = fail(&inv.err, rc);
	else if (inv.version)
		status = cmd_version(&inv);
	else if (inv.help)
		status = print_help(&inv);
	else {
		rc = inv.command->run(&inv);
		status = rc < 0 ? fail(&inv.err, rc) : rc;
	}
	invocation_clear(&inv);
	if (fflush(stdout) != 0 && status == 0)
		status = 1;
	return status;
}
