#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "clusterctl/ctl_client.h"
#include "clusterctl/host_setup.h"
#include "lib/cleanup.h"
#include "lib/subprocess.h"
#include "proto/model.pb-c.h"

#define SYSTEMCTL_TIMEOUT_MS 60000

struct run {
	int rc;
	int exit_status;
	char text[256];
	bool ended;
};

static void on_ended(void *data, const struct subprocess_result *result)
{
	struct run *run = data;

	run->rc = result->rc;
	run->exit_status = result->exit_status;
	snprintf(run->text, sizeof(run->text), "%s", result->err_out);
	run->text[strcspn(run->text, "\n")] = '\0';
	run->ended = true;
}

static int run_systemctl(struct invocation *inv, const char *const *argv)
{
	struct subprocess_options options = {.argv = argv, .timeout_ms = SYSTEMCTL_TIMEOUT_MS};
	struct run run = {0};
	struct ctl_client *c;
	int rc = invocation_client(inv, &c);

	if (rc == 0)
		rc = subprocess_run(ctl_client_loop(c), &options, on_ended, &run, NULL, &inv->err);
	if (rc < 0)
		return rc;
	while (!run.ended)
		uv_run(ctl_client_loop(c), UV_RUN_ONCE);
	if (run.rc < 0 || run.exit_status != 0)
		return err_set_status(&inv->err, EIO, GANTRY__STATUS__STATUS_UNAVAILABLE,
				      "the host's files are written, but its services do not start: systemctl: %s; see 'journalctl -u "
				      "corosync -u gantry-agent -u clusterd'",
				      run.rc < 0 ? strerror(-run.rc) : run.text);
	return 0;
}

int host_services_start(struct invocation *inv, bool no_start)
{
	static const char *const argv[] = {"systemctl", "enable", "--now", "corosync", "gantry-agent", "clusterd", NULL};

	if (!no_start && access("/run/systemd/system", F_OK) == 0)
		return run_systemctl(inv, argv);
	fprintf(stderr, "clusterctl: %s: corosync, gantry-agent and clusterd have to be started by the host's own service manager; waiting "
			"for clusterd\n", no_start ? "--no-start" : "systemd does not run here");
	return 0;
}
