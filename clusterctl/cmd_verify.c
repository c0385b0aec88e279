/* cluster verify, cluster set. */
#include <errno.h>
#include <string.h>

#include "clusterctl/cluster_verify.h"
#include "clusterctl/cmd.h"
#include "clusterctl/job_wait.h"
#include "clusterctl/units.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pbjson.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x

static const char *severity_word(const struct finding *f)
{
	return pbjson_enum_word(&gantry__event_severity__descriptor, f->severity);
}

static int print_findings(struct invocation *inv, const struct findings *found)
{
	json_t *json = json_array();

	for (size_t i = 0; i < found->n; i++) {
		const struct finding *f = &found->list[i];
		if (inv->format == OUTPUT_TABLE)
			printf("%-8s %s: %s. Remedy: %s\n", f->severity == GANTRY__EVENT_SEVERITY__EVENT_ERROR ? "ERROR" : "WARNING", f->subject, f->text,
			       f->remedy);
		else if (inv->format == OUTPUT_NAME)
			printf("%s\n", f->kind);
		json_array_append_new(json, json_pack("{s:s, s:s, s:s, s:s, s:s}", "severity", severity_word(f), "kind", f->kind, "subject",
						      f->subject, "text", f->text, "remedy", f->remedy));
	}
	if (inv->format == OUTPUT_JSON || inv->format == OUTPUT_YAML)
		return output_object(inv->format, json_pack("{s:o}", "findings", json), &inv->err);
	json_decref(json);
	if (inv->format == OUTPUT_TABLE && found->n == 0)
		puts("Nothing is wrong.");
	return 0;
}

int cmd_cluster_verify(struct invocation *inv)
{
	struct verify_input in = {0};
	struct findings found = {0};
	Gantry__CtlStatus *status = NULL;
	Gantry__CtlPlan **plans = NULL;
	Gantry__CtlModel *m = NULL;
	struct ctl_client *c;
	int rc = invocation_client(inv, &c);

	if (rc == 0)
		rc = cmd_ask_status(c, &status, &inv->err);
	if (rc == 0)
		rc = cmd_model(inv, false, &m);
	if (rc == 0 && m->quorate)
		rc = cmd_plans(inv, m, &plans);
	if (rc == 0) {
		in = (struct verify_input){.m = m, .status = status, .plans = plans};
		cluster_verify(&in, &found);
		rc = print_findings(inv, &found);
	}
	if (rc == 0 && found.n)
		rc = STATUS(FAILED);
	findings_free(&found);
	cmd_plans_free(plans, m ? m->model->n_hosts : 0);
	if (m != NULL)
		gantry__ctl_model__free_unpacked(m, NULL);
	if (status != NULL)
		gantry__ctl_status__free_unpacked(status, NULL);
	return rc;
}

int cmd_cluster_set(struct invocation *inv)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdClusterSet body = GANTRY__CMD_CLUSTER_SET__INIT;
	_cleanup_free_ char *key = NULL, *value = NULL;
	uint64_t percent = 0;
	int rc = cmd_split_pair(inv, inv->args[0], &key, &value);

	if (rc == 0 && strcmp(key, "fence-share") != 0)
		rc = err_set_status(&inv->err, EINVAL, STATUS(USAGE), "the cluster has no setting '%.40s'; there is fence-share", key);
	if (rc == 0)
		rc = units_parse_number("fence-share", value, 1, 100, &percent, &inv->err);
	if (rc < 0)
		return rc;
	_cleanup_free_ char *done = str_printf("at most %u %% of the other hosts are fenced at once", (unsigned)percent);
	body.fence_share_percent = (uint32_t)percent;
	command.body_case = GANTRY__COMMAND__BODY_CLUSTER_SET;
	command.cluster_set = &body;
	return job_run(inv, &command, done);
}
