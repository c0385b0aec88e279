#include "clusterd/daemon/api_internal.h"

void api__on_what_if(struct api_client *client, uint64_t id, const Gantry__CtlWhatIf *request)
{
	struct api *api = client->api;
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlPlan *plan = NULL;
	struct err err = {0};
	int rc;

	if (!api->ops.is_current(api->data)) {
		api__error(client, id, STATUS(NO_QUORUM), "host %s is not in the quorum now: what would happen is decided by those that are; "
			   "ask one of them (clusterctl --host)", api->config.host);
		return;
	}
	rc = api->ops.what_if(api->data, request->failed, request->n_failed, &plan, &err);
	if (rc < 0) {
		api__error(client, id, err_status(&err, rc), "%s", err.text);
		return;
	}
	message.body_case = GANTRY__CTL_MESSAGE__BODY_PLAN;
	message.plan = plan;
	api__send(client, id, &message);
	gantry__ctl_plan__free_unpacked(plan, NULL);
}
