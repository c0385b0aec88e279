/* Letting a host in. In this order, so that at no moment a quorum is wanted that cannot be had:
 *   1. here: token, name, address are checked, the certificate request is signed
 *   2. HOST_ADMIT is committed: the host is in the model as JOINING, without a vote; every member rewrites
 *      corosync.conf and reloads it
 *   3. the answer: certificate, CA, corosync.conf, authkey, node id. The host starts corosync and clusterd
 *   4. the leader sees it in the group with the log taken over and proposes HOST_ADD (leader.c): now it votes */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clusterd/daemon/api_internal.h"
#include "clusterd/daemon/corosync_config.h"
#include "lib/atomic_file.h"
#include "lib/cleanup.h"
#include "lib/limits.h"
#include "lib/log.h"
#include "proto/pb.h"

#define PEM_MAX (64u << 10)
#define AUTHKEY_MAX 4096

static int read_file(const char *path, size_t max, struct buf *out, struct err *err)
{
	int rc = atomic_file_read(path, max, out, err);

	if (rc == -ENOENT)
		return err_set(err, ENOENT, "%s is not on this host", path);
	return rc;
}

/* The CA's key is only where the cluster was made: a stolen host must not be able to make others. */
static int read_ca(struct api *api, struct buf *cert, struct buf *key, struct err *err)
{
	int rc = read_file(api->config.ca_cert, PEM_MAX, cert, err);

	if (rc == 0 && key)
		rc = read_file(api->config.ca_key, PEM_MAX, key, err);
	if (rc == -ENOENT)
		return err_set_status(err, ENOENT, STATUS(UNAVAILABLE), "host %s cannot let hosts in: %s holds no key of the cluster's CA; "
				      "make the token on the host where the cluster was made, and join that one", api->config.host,
				      api->config.ca_key);
	return rc;
}

void api__on_token(struct api_client *client, uint64_t id)
{
	struct api *api = client->api;
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlTokenIs body = GANTRY__CTL_TOKEN_IS__INIT;
	char secret[JOIN_TOKEN_HEX + 1], fingerprint[65], token[JOIN_TOKEN_HEX + 67];
	struct buf cert = {0}, key = {0};
	struct err err = {0};
	int rc = read_ca(api, &cert, &key, &err);

	if (rc == 0)
		rc = pki_fingerprint(&cert, fingerprint, &err);
	if (rc == 0)
		rc = join_tokens_make(&api->tokens, time(NULL), secret, &err);
	buf_free(&cert);
	buf_free(&key);
	if (rc < 0) {
		api__error(client, id, err_status(&err, rc), "%s", err.text);
		return;
	}
	snprintf(token, sizeof(token), "%s.%s", fingerprint, secret);
	body.token = token;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_TOKEN_IS;
	message.token_is = &body;
	api__send(client, id, &message);
}

/* The host of this name that was let in before and has not come: it asks again. */
static Gantry__Host *waiting_host(const struct model *model, const Gantry__CtlJoin *join)
{
	Gantry__Host *host = model_host(model, join->name);
	bool votes = false;

	for (size_t i = 0; host && i < model->state->n_voters; i++)
		votes = votes || model->state->voters[i] == host->node_id;
	return host && !votes && !strcmp(host->address, join->address) ? host : NULL;
}

static uint32_t free_node_id(const struct model *model)
{
	uint32_t highest = 0;

	for (size_t i = 0; i < model->state->n_hosts; i++)
		if (model->state->hosts[i]->node_id > highest)
			highest = model->state->hosts[i]->node_id;
	return highest + 1;
}

static int check_join(struct api *api, const Gantry__CtlJoin *join, const char *secret, struct err *err)
{
	const struct model *model = api->ops.model(api->data);

	if (!model->state->n_hosts)
		return err_set_status(err, EAGAIN, STATUS(UNAVAILABLE), "host %s is in no cluster yet: run 'clusterctl cluster init' there first",
				      api->config.host);
	if (join_tokens_check(&api->tokens, secret, join->name, time(NULL), err) < 0) {
		err->status = STATUS(PERMISSION);
		return -EACCES;
	}
	if (!pki_host_name_ok(join->name))
		return err_set_status(err, EINVAL, STATUS(BAD_DATA), "'%s' is no name for a host: use letters, digits, '-', '.', '_'", join->name);
	if (!join->address[0] || strspn(join->address, "0123456789abcdefABCDEF.:") != strlen(join->address))
		return err_set_status(err, EINVAL, STATUS(BAD_DATA), "host %s: '%s' is no IP address", join->name, join->address);
	if (waiting_host(model, join))
		return 0;
	if (model_host(model, join->name))
		return err_set_status(err, EEXIST, STATUS(EXISTS), "a host %s is in the cluster already: take another name (--host-name), or "
				      "remove that one first ('clusterctl host remove %s')", join->name, join->name);
	for (size_t i = 0; i < model->state->n_hosts; i++)
		if (!strcmp(model->state->hosts[i]->address, join->address))
			return err_set_status(err, EEXIST, STATUS(EXISTS), "address %s is that of host %s", join->address,
					      model->state->hosts[i]->name);
	return 0;
}

/* Certificate, CA and authkey; corosync.conf follows when the host is in the model. */
static int prepare_answer(struct api *api, const Gantry__CtlJoin *join, Gantry__CtlJoined *joined, struct err *err)
{
	const Gantry__ClusterModel *s = api->ops.model(api->data)->state;
	struct buf ca = {0}, key = {0}, cert = {0}, authkey = {0};
	struct buf request = {.data = join->certificate_request.data, .len = join->certificate_request.len};
	int rc = read_ca(api, &ca, &key, err);

	if (rc == 0)
		rc = read_file(api->config.corosync_authkey, AUTHKEY_MAX, &authkey, err);
	if (rc == 0)
		rc = pki_sign(&ca, &key, &request, join->name, s->cluster_uuid, &cert, err);
	if (rc == 0) {
		pb_set_bytes(&joined->certificate, cert.data, cert.len);
		pb_set_bytes(&joined->ca, ca.data, ca.len);
		pb_set_bytes(&joined->authkey, authkey.data, authkey.len);
		pb_set_string(&joined->cluster_name, s->cluster_name);
		pb_set_string(&joined->cluster_uuid, s->cluster_uuid);
	}
	if (key.data)
		memset(key.data, 0, key.len);
	buf_free(&ca);
	buf_free(&key);
	buf_free(&cert);
	buf_free(&authkey);
	return rc;
}

static void admitted(struct api_request *r, const Gantry__CommandResult *result)
{
	struct api *api = r->api;
	const struct model *model = api->ops.model(api->data);
	const Gantry__Host *host = model_host(model, r->name);
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	struct buf old = {0}, conf = {0};
	struct err err = {0};
	int rc;

	api->join_running = false;
	if (result->status != STATUS(OK)) {
		if (r->client)
			api__error(r->client, r->id, result->status, "%s", result->text);
		return;
	}
	if (!host) {
		if (r->client)
			api__error(r->client, r->id, STATUS(FAILED), "host %s was removed while it joined", r->name);
		return;
	}
	/* From this host's file: settings of the ring and a quorum device must be alike everywhere. */
	rc = atomic_file_read(api->config.corosync_conf, COROSYNC_CONF_MAX, &old, &err);
	if (rc == 0 || rc == -ENOENT)
		rc = corosync_config_render(model, rc == 0 ? buf_str(&old) : NULL, &conf, &err);
	buf_free(&old);
	if (rc == 0)
		rc = join_tokens_use(&api->tokens, r->secret, r->name, &err);
	if (rc < 0) {
		if (r->client)
			api__error(r->client, r->id, STATUS(FAILED), "%s", err.text);
		buf_free(&conf);
		return;
	}
	log_notice("host %s (%s) was let in as node %u", host->name, host->address, host->node_id);
	r->joined->node_id = host->node_id;
	pb_set_string(&r->joined->corosync_conf, buf_str(&conf));
	buf_free(&conf);
	message.body_case = GANTRY__CTL_MESSAGE__BODY_JOINED;
	message.joined = r->joined;
	if (r->client)
		api__send(r->client, r->id, &message);
}

static void admit(struct api_request *r, const Gantry__CtlJoin *join)
{
	struct api *api = r->api;
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdHostAdmit admit = GANTRY__CMD_HOST_ADMIT__INIT;
	Gantry__Host host = GANTRY__HOST__INIT;

	host.node_id = free_node_id(api->ops.model(api->data));
	host.name = join->name;
	host.address = join->address;
	host.state = GANTRY__HOST_STATE__HOST_STATE_JOINING;
	admit.host = &host;
	command.body_case = GANTRY__COMMAND__BODY_HOST_ADMIT;
	command.host_admit = &admit;
	api__propose(r, &command);
}

/* Already let in: nothing is to be proposed, the answer is the same. */
static void answer_again(struct api_request *r, const Gantry__CtlJoin *join)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdEventNote note = GANTRY__CMD_EVENT_NOTE__INIT;
	_cleanup_free_ char *subject = str_printf("host %s", join->name);
	_cleanup_free_ char *text = str_printf("%s asked again to be let in", join->name);

	/* Through the log all the same: without a quorum nobody gets a certificate. */
	note.subject = subject;
	note.kind = (char *)"host-admitted-again";
	note.text = text;
	command.body_case = GANTRY__COMMAND__BODY_EVENT_NOTE;
	command.event_note = &note;
	api__propose(r, &command);
}

void api__on_join(struct api_client *client, uint64_t id, const Gantry__CtlJoin *join)
{
	struct api *api = client->api;
	const char *dot = strrchr(join->token, '.');
	const char *secret = dot ? dot + 1 : join->token;
	Gantry__CtlJoined *joined;
	struct api_request *r;
	struct err err = {0};
	int rc;

	/* One at a time: two would be given the same node id. */
	if (api->join_running) {
		api__error(client, id, STATUS(RETRY), "another host is being let in; try again");
		return;
	}
	joined = PB_NEW(Gantry__CtlJoined, gantry__ctl_joined__init);
	rc = check_join(api, join, secret, &err);
	if (rc == 0)
		rc = prepare_answer(api, join, joined, &err);
	r = rc == 0 ? api__request_new(client, id) : NULL;
	if (!r) {
		if (rc < 0)
			api__error(client, id, err_status(&err, rc), "%s", err.text);
		gantry__ctl_joined__free_unpacked(joined, NULL);
		return;
	}
	r->joined = joined;
	r->then = admitted;
	r->secret = str_dup(secret);
	r->name = str_dup(join->name);
	api->join_running = true;
	if (waiting_host(api->ops.model(api->data), join))
		answer_again(r, join);
	else
		admit(r, join);
}
