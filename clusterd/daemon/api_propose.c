#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "clusterd/daemon/api_internal.h"
#include "lib/limits.h"
#include "proto/pb.h"

#define TOKEN_BYTES 32

/* What clients may propose; all else is the daemons' own business. */
static bool is_users(const struct model *model, Gantry__Command__BodyCase body)
{
	switch (body) {
	case GANTRY__COMMAND__BODY_CLUSTER_INIT:
		return !model->state->n_hosts;
	case GANTRY__COMMAND__BODY_HOST_REMOVE:
	case GANTRY__COMMAND__BODY_FENCE_SET:
	case GANTRY__COMMAND__BODY_FENCE_CONFIRM:
	case GANTRY__COMMAND__BODY_FENCE_RUN:
	case GANTRY__COMMAND__BODY_HA_SET:
	case GANTRY__COMMAND__BODY_HA_ARM:
	case GANTRY__COMMAND__BODY_CLUSTER_SET:
	case GANTRY__COMMAND__BODY_POOL_ADD:
	case GANTRY__COMMAND__BODY_POOL_REMOVE:
	case GANTRY__COMMAND__BODY_VOLUME_CREATE:
	case GANTRY__COMMAND__BODY_VOLUME_DELETE:
	case GANTRY__COMMAND__BODY_DOMAIN_CREATE:
	case GANTRY__COMMAND__BODY_DOMAIN_START:
	case GANTRY__COMMAND__BODY_DOMAIN_UNDEFINE:
	case GANTRY__COMMAND__BODY_DOMAIN_GOAL:
	case GANTRY__COMMAND__BODY_MIGRATE_START:
	case GANTRY__COMMAND__BODY_JOB_CANCEL:
	case GANTRY__COMMAND__BODY_EVENT_NOTE:
		return true;
	default:
		return false;
	}
}

static int fill_token(ProtobufCBinaryData *token)
{
	uint8_t random[TOKEN_BYTES];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	pb_set_bytes(token, random, sizeof(random));
	return 0;
}

/* The log takes a voter's leaving from the command alone, whether or not the model then refuses it: what is to be
 * refused must not get there. */
static bool would_be_refused(struct api_client *client, uint64_t id, Gantry__Command *command)
{
	struct api *api = client->api;
	const struct model *model = api->ops.model(api->data);
	Gantry__CommandResult *result = NULL;
	struct model trial = {0};
	struct buf state = {0}, packed = {0};
	struct err err = {0};
	bool refused = false;

	command->version = MODEL_COMMAND_VERSION;
	model_init(&trial);
	model_snapshot(model, &state);
	pb_pack(command, &packed);
	if (model_install(&trial, state.data, state.len, &err) == 0 &&
	    model_apply(&trial, model->state->applied_index + 1, model->state->applied_epoch, packed.data, packed.len, &result, &err) == 0) {
		refused = result->status != STATUS(OK);
		if (refused)
			api__error(client, id, result->status, "%s", result->text);
		gantry__command_result__free_unpacked(result, NULL);
	}
	model_free(&trial);
	buf_free(&state);
	buf_free(&packed);
	return refused;
}

/* What the client leaves to us. False: answered. */
static bool complete(struct api_client *client, uint64_t id, Gantry__Command *command)
{
	struct api *api = client->api;
	const struct model *model = api->ops.model(api->data);

	switch (command->body_case) {
	case GANTRY__COMMAND__BODY_MIGRATE_START:
		if (fill_token(&command->migrate_start->token) == 0)
			return true;
		api__error(client, id, STATUS(FAILED), "no random numbers for the migration's token: %s", strerror(errno));
		return false;
	case GANTRY__COMMAND__BODY_VOLUME_CREATE:
		if (command->volume_create->volume && !command->volume_create->volume->host[0])
			pb_set_string(&command->volume_create->volume->host, api->config.host);
		return true;
	case GANTRY__COMMAND__BODY_HOST_REMOVE: {
		const Gantry__Host *host = model_host(model, command->host_remove->name);

		if (host)
			command->host_remove->node_id = host->node_id;
		return !would_be_refused(client, id, command);
	}
	default:
		return true;
	}
}

void api__on_propose(struct api_client *client, uint64_t id, Gantry__Command *command)
{
	const struct model *model = client->api->ops.model(client->api->data);
	struct api_request *r;

	/* A cluster_init whose answer was lost is asked again: by then there is a cluster, which the exactly-once rule of
	 * the model answers, not this list. */
	if (!is_users(model, command->body_case) &&
	    !(command->body_case == GANTRY__COMMAND__BODY_CLUSTER_INIT && command->client[0] && command->seq)) {
		api__error(client, id, STATUS(PERMISSION), command->body_case == GANTRY__COMMAND__BODY_CLUSTER_INIT ?
			   "this host is in a cluster already; see 'clusterctl cluster status'" :
			   "this command is not for clients: only clusterd itself proposes it");
		return;
	}
	/* Bound to no epoch: a user's wish holds whoever leads. */
	command->epoch = 0;
	if (!complete(client, id, command))
		return;
	r = api__request_new(client, id);
	if (r)
		api__propose(r, command);
}
