/* cluster init, join, token: a host becomes a member. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "clusterctl/cmd.h"
#include "clusterctl/ctl_client.h"
#include "clusterctl/host_setup.h"
#include "clusterctl/units.h"
#include "lib/atomic_file.h"
#include "lib/cleanup.h"
#include "lib/corosync_conf.h"
#include "lib/hostconf.h"
#include "lib/paths.h"
#include "proto/pb.h"
#include "proto/tls.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x
#define START_TIMEOUT_MS 60000
#define ASK_PAUSE_MS 200
#define AGENT_WAIT_MS 15000
#define TOKEN_SECRET_MIN 16
#define PEM_MAX (64u << 10)

static int fill_random(void *data, size_t len, struct err *err)
{
	if (getrandom(data, len, 0) != (ssize_t)len)
		return err_set(err, EIO, "the system gives no random numbers: %s", strerror(errno));
	return 0;
}

static uint64_t start_deadline(const struct invocation *inv)
{
	return ctl_now_ms() + (inv->timeout_s ? inv->timeout_s * 1000ull : START_TIMEOUT_MS);
}

/* Waits until the daemon that was just started answers. */
static int wait_for_daemon(struct invocation *inv, struct ctl_client *c, uint64_t deadline)
{
	for (;;) {
		Gantry__CtlStatus *status = NULL;
		int rc = cmd_ask_status(c, &status, &inv->err);

		if (rc == 0)
			gantry__ctl_status__free_unpacked(status, NULL);
		if (rc == 0 || rc == -EINTR)
			return rc;
		if (ctl_now_ms() >= deadline)
			return err_prefix(&inv->err, rc, "the host's files are written; when clusterd runs, give the same command again");
		rc = ctl_pause(c, ASK_PAUSE_MS, &inv->err);
		if (rc < 0)
			return rc;
	}
}

/* What this host's own clusterd says of the host: *ret_state for people. */
static void ask_own_state(struct invocation *inv, struct ctl_client *c, const char *name, bool *ret_online, bool *ret_agent,
			  char ret_state[160])
{
	Gantry__CtlStatus *status = NULL;
	Gantry__CtlModel *m = NULL;

	*ret_online = *ret_agent = false;
	snprintf(ret_state, 160, "clusterd has not the cluster's log yet");
	if (cmd_ask_status(c, &status, &inv->err) < 0)
		return;
	if (status->quorate && cmd_model(inv, false, &m) == 0) {
		const Gantry__Host *h = cmd_host(m, name);
		*ret_online = h != NULL && h->state == GANTRY__HOST_STATE__HOST_STATE_ONLINE;
		*ret_agent = h != NULL && h->agent_connected && h->memory_bytes != 0;
		if (h != NULL && h->state_reason[0])
			snprintf(ret_state, 160, "%.150s", h->state_reason);
		gantry__ctl_model__free_unpacked(m, NULL);
	} else {
		snprintf(ret_state, 160, "%.150s", status->log_state);
	}
	gantry__ctl_status__free_unpacked(status, NULL);
}

/* Until this host's own clusterd holds the log and says that the host is online, and its agent can take domains. Without the agent it
 * is a member all the same, so that is only said. */
static int wait_until_online(struct invocation *inv, struct ctl_client *c, const char *name, uint64_t deadline)
{
	uint64_t online_at = 0;

	for (;;) {
		bool online, agent;
		char state[160];

		ask_own_state(inv, c, name, &online, &agent, state);
		if (online && agent)
			return 0;
		uint64_t now = ctl_now_ms();
		online_at = !online ? 0 : online_at ? online_at : now;
		if (online && (now >= deadline || now - online_at >= AGENT_WAIT_MS)) {
			fprintf(stderr, "clusterctl: warning: the agent of host %s is not connected yet; see the service gantry-agent\n", name);
			return 0;
		}
		if (now >= deadline)
			return err_set_status(&inv->err, ETIMEDOUT, STATUS(TIMEOUT),
					      "host %s is a member, but is not online yet: %s; see 'clusterctl cluster status'", name, state);
		int rc = ctl_pause(c, ASK_PAUSE_MS, &inv->err);
		if (rc < 0)
			return rc;
	}
}

/* ---- token */

static int ask_token(struct invocation *inv, char **ret)
{
	Gantry__CtlMessage request = GANTRY__CTL_MESSAGE__INIT, *answer = NULL;
	Gantry__CtlToken body = GANTRY__CTL_TOKEN__INIT;
	struct ctl_client *c;
	int rc = invocation_client(inv, &c);

	request.body_case = GANTRY__CTL_MESSAGE__BODY_TOKEN;
	request.token = &body;
	if (rc == 0)
		rc = ctl_call(c, &request, GANTRY__CTL_MESSAGE__BODY_TOKEN_IS, &answer, &inv->err);
	if (rc < 0)
		return rc;
	*ret = str_dup(answer->token_is->token);
	gantry__ctl_message__free_unpacked(answer, NULL);
	return 0;
}

/* The host that is asked, as others reach it. */
static char *own_address(void)
{
	struct hostconf conf = {0};
	char *address = NULL;

	if (hostconf_read(PATH_HOST_CONFIG, &conf, NULL) == 0)
		address = str_dup(conf.address);
	hostconf_free(&conf);
	return address ? address : str_dup("ADDRESS");
}

static int print_token(struct invocation *inv, const char *token)
{
	_cleanup_free_ char *address = inv->host ? str_dup(inv->host) : own_address();

	if (inv->format == OUTPUT_NAME) {
		puts(token);
		return 0;
	}
	if (inv->format != OUTPUT_TABLE)
		return output_object(inv->format, json_pack("{s:s, s:s}", "address", address, "token", token), &inv->err);
	printf("On each further host, within 24 hours (a token lets one host in):\n"
	       "  clusterctl cluster join %s --token %s\n", address, token);
	return 0;
}

int cmd_cluster_token(struct invocation *inv)
{
	_cleanup_free_ char *token = NULL;
	int rc = ask_token(inv, &token);

	return rc < 0 ? rc : print_token(inv, token);
}

/* ---- init */

static int make_uuid(char ret[37], struct err *err)
{
	uint8_t b[16];
	int rc = fill_random(b, sizeof(b), err);

	if (rc < 0)
		return rc;
	b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
	b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
	snprintf(ret, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3], b[4], b[5], b[6],
		 b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
	return 0;
}

/* CA, the first host's certificate, corosync's key and file. */
static int make_identity(const char *cluster, const struct host_setup *s, struct host_identity *id, struct err *err)
{
	const struct corosync_conf_node node = {s->name, s->address, 1};
	const struct corosync_conf conf = {.cluster_name = cluster, .token_ms = s->token_ms, .nodes = &node, .n_nodes = 1};
	struct buf csr = {0};
	char uuid[37];
	int rc = make_uuid(uuid, err);

	if (rc == 0)
		rc = pki_make_ca(cluster, uuid, &id->ca, &id->ca_key, err);
	if (rc == 0)
		rc = pki_make_request(s->name, &csr, &id->key, err);
	if (rc == 0)
		rc = pki_sign(&id->ca, &id->ca_key, &csr, s->name, uuid, &id->cert, err);
	buf_free(&csr);
	if (rc == 0) {
		rc = fill_random(buf_reserve(&id->authkey, COROSYNC_CONF_AUTHKEY_BYTES), COROSYNC_CONF_AUTHKEY_BYTES, err);
		id->authkey.len = rc == 0 ? COROSYNC_CONF_AUTHKEY_BYTES : 0;
	}
	if (rc == 0 && corosync_conf_render(&conf, &id->corosync_conf) < 0)
		rc = err_set_status(err, EINVAL, STATUS(USAGE), "cluster name '%.60s': letters, digits and _ . -", cluster);
	return rc;
}

static int write_first_host(struct invocation *inv, const struct host_setup *s)
{
	struct host_identity id = {0};
	int rc = s->force ? host_setup_set_aside(&inv->err) : 0;

	if (rc == 0)
		rc = make_identity(inv->args[0], s, &id, &inv->err);
	if (rc == 0)
		rc = host_setup_take_corosync(s, &inv->err);
	if (rc == 0)
		rc = host_setup_write(s, &id, &inv->err);
	host_identity_free(&id);
	return rc;
}

/* The first command of the log. Its name and address are those of host.yaml, its uuid the one in the certificate: so that an
 * init that was cut off can be gone on with. */
static int propose_init(struct invocation *inv, struct ctl_client *c, uint64_t deadline)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdClusterInit body = GANTRY__CMD_CLUSTER_INIT__INIT;
	Gantry__Host host = GANTRY__HOST__INIT;
	struct tls_context *tls = NULL;
	struct hostconf conf = {0};
	int rc = hostconf_read(PATH_HOST_CONFIG, &conf, &inv->err);

	if (rc == 0)
		rc = tls_context_load(PATH_PKI_CA, PATH_PKI_CERT, PATH_PKI_KEY, &tls, &inv->err);
	if (rc == 0) {
		host.node_id = 1;
		host.name = conf.name;
		host.address = conf.address;
		body.name = (char *)inv->args[0];
		body.uuid = tls->cluster_uuid;
		body.host = &host;
		command.body_case = GANTRY__COMMAND__BODY_CLUSTER_INIT;
		command.cluster_init = &body;
		/* corosync may take a while to come up, and clusterd says so each time. */
		do
			rc = ctl_propose(c, &command, NULL, &inv->err);
		while (rc < 0 && rc != -EINTR && (rc == -EAGAIN || inv->err.status == STATUS(UNAVAILABLE) || inv->err.status == STATUS(NO_QUORUM)) &&
		       ctl_now_ms() < deadline && ctl_pause(c, ASK_PAUSE_MS, NULL) == 0);
	}
	if (rc == 0)
		rc = wait_until_online(inv, c, conf.name, deadline);
	tls_context_free(tls);
	hostconf_free(&conf);
	return rc;
}

/* Files are not taken from under daemons that use them. */
static int check_stopped(struct invocation *inv, struct ctl_client *c)
{
	Gantry__CtlStatus *status = NULL;
	int rc = cmd_ask_status(c, &status, NULL);

	if (rc == -EINTR)
		return rc;
	if (rc < 0)
		return 0;
	rc = status->cluster_name[0] == '\0' ? 0 :
	     err_set_status(&inv->err, EBUSY, STATUS(CONSTRAINT),
			    "clusterd runs here as '%s' of the cluster '%s': remove the host from there ('clusterctl host remove %s' on another "
			    "host), stop its services (systemctl stop clusterd gantry-agent corosync), then try again",
			    status->host, status->cluster_name, status->host);
	gantry__ctl_status__free_unpacked(status, NULL);
	return rc;
}

/* A host that is set up: a member (an error), or an init that was cut off (gone on with). */
static int check_existing(struct invocation *inv, struct ctl_client *c)
{
	Gantry__CtlStatus *status = NULL;
	int rc = cmd_ask_status(c, &status, NULL);

	if (rc == -EINTR)
		return rc;
	if (rc == 0 && status->cluster_name[0] != '\0')
		rc = err_set_status(&inv->err, EEXIST, STATUS(EXISTS),
				    "this host is '%s' of the cluster '%s' already; see 'clusterctl cluster status'", status->host,
				    status->cluster_name);
	else if (access(PATH_PKI_CA_KEY, F_OK) < 0)
		rc = err_set_status(&inv->err, EEXIST, STATUS(NEEDS_FORCE),
				    "this host was set up to join another host's cluster (%s); --force sets that aside", PATH_HOST_CONFIG);
	else
		rc = 0;
	if (status != NULL)
		gantry__ctl_status__free_unpacked(status, NULL);
	if (rc == 0)
		fprintf(stderr, "clusterctl: the files of this host are there; going on with them (--force makes new ones)\n");
	return rc;
}

static int set_up_first_host(struct invocation *inv, struct ctl_client *c)
{
	const char *token = invocation_option(inv, "token");
	struct host_setup s = {0};
	uint64_t token_ms = 0;
	int rc = host_setup_check_user(&inv->err);

	if (rc == 0 && token != NULL)
		rc = units_parse_number("--token", token, COROSYNC_CONF_TOKEN_MIN_MS, COROSYNC_CONF_TOKEN_MAX_MS, &token_ms, &inv->err);
	if (rc == 0)
		rc = host_setup_read(inv, &s);
	if (rc < 0)
		return rc;
	s.token_ms = (uint32_t)token_ms;
	if (host_setup_exists() && !s.force)
		rc = check_existing(inv, c);
	else
		rc = check_stopped(inv, c);
	if (rc == 0 && (!host_setup_exists() || s.force))
		rc = write_first_host(inv, &s);
	host_setup_clear(&s);
	return rc;
}

int cmd_cluster_init(struct invocation *inv)
{
	_cleanup_free_ char *token = NULL;
	struct ctl_client *c;
	int rc = invocation_client(inv, &c);

	if (rc == 0)
		rc = set_up_first_host(inv, c);
	if (rc == 0)
		rc = host_services_start(inv, invocation_option(inv, "no-start") != NULL);
	if (rc < 0)
		return rc;
	uint64_t deadline = start_deadline(inv);
	rc = wait_for_daemon(inv, c, deadline);
	if (rc == 0)
		rc = propose_init(inv, c, deadline);
	if (rc == 0)
		rc = ask_token(inv, &token);
	if (rc < 0)
		return rc;
	if (inv->format == OUTPUT_TABLE)
		printf("The cluster '%s' is there, with this host as its first member.\n", inv->args[0]);
	return print_token(inv, token);
}

/* ---- join */

/* FINGERPRINT.SECRET */
static int check_token(const char *token, char fingerprint[TLS_FINGERPRINT_HEX + 1], struct err *err)
{
	static const char hex[] = "0123456789abcdefABCDEF";

	if (strspn(token, hex) != TLS_FINGERPRINT_HEX || token[TLS_FINGERPRINT_HEX] != '.' ||
	    strlen(token + TLS_FINGERPRINT_HEX + 1) < TOKEN_SECRET_MIN ||
	    token[TLS_FINGERPRINT_HEX + 1 + strspn(token + TLS_FINGERPRINT_HEX + 1, hex)] != '\0')
		return err_set_status(err, EINVAL, STATUS(USAGE), "this is no join token; 'clusterctl cluster token' on the first host makes one");
	memcpy(fingerprint, token, TLS_FINGERPRINT_HEX);
	fingerprint[TLS_FINGERPRINT_HEX] = '\0';
	return 0;
}

static int ask_join(struct invocation *inv, const struct host_setup *s, const char *token, const struct buf *csr,
		    Gantry__CtlMessage **ret)
{
	Gantry__CtlMessage request = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlJoin body = GANTRY__CTL_JOIN__INIT;
	struct ctl_options options = {.host = inv->args[0], .timeout_ms = inv->timeout_s * 1000};
	char fingerprint[TLS_FINGERPRINT_HEX + 1];
	struct ctl_client *c = NULL;
	int rc = check_token(token, fingerprint, &inv->err);

	if (rc == 0)
		rc = tls_context_for_join(fingerprint, &options.tls, &inv->err);
	if (rc == 0)
		rc = ctl_client_new(&options, &c, &inv->err);
	if (rc == 0) {
		body.token = (char *)token;
		body.name = s->name;
		body.address = s->address;
		body.certificate_request.data = csr->data;
		body.certificate_request.len = csr->len;
		request.body_case = GANTRY__CTL_MESSAGE__BODY_JOIN;
		request.join = &body;
		rc = ctl_call(c, &request, GANTRY__CTL_MESSAGE__BODY_JOINED, ret, &inv->err);
	}
	ctl_client_free(c);
	tls_context_free(options.tls);
	return rc;
}

static int join_and_write(struct invocation *inv, const struct host_setup *s)
{
	const char *token = invocation_option(inv, "token");
	struct host_identity id = {0};
	Gantry__CtlMessage *answer = NULL;
	struct buf csr = {0};
	int rc = pki_make_request(s->name, &csr, &id.key, &inv->err);

	if (rc == 0)
		rc = ask_join(inv, s, token, &csr, &answer);
	buf_free(&csr);
	if (rc == 0) {
		const Gantry__CtlJoined *j = answer->joined;
		buf_append(&id.ca, j->ca.data, j->ca.len);
		buf_append(&id.cert, j->certificate.data, j->certificate.len);
		buf_append(&id.authkey, j->authkey.data, j->authkey.len);
		buf_append(&id.corosync_conf, j->corosync_conf, strlen(j->corosync_conf));
		rc = s->force ? host_setup_set_aside(&inv->err) : 0;
		if (rc == 0)
			rc = host_setup_take_corosync(s, &inv->err);
		if (rc == 0)
			rc = host_setup_write(s, &id, &inv->err);
		if (rc == 0)
			fprintf(stderr, "clusterctl: host %s is let into the cluster '%s' as node %u\n", s->name, j->cluster_name, j->node_id);
	}
	if (answer != NULL)
		gantry__ctl_message__free_unpacked(answer, NULL);
	host_identity_free(&id);
	return rc;
}

int cmd_cluster_join(struct invocation *inv)
{
	struct host_setup s = {0};
	struct ctl_client *c;
	int rc = host_setup_check_user(&inv->err);

	if (rc == 0 && invocation_option(inv, "token") == NULL)
		rc = err_set_status(&inv->err, EINVAL, STATUS(USAGE), "--token is missing; 'clusterctl cluster token' on the first host makes one");
	if (rc == 0)
		rc = invocation_client(inv, &c);
	if (rc == 0)
		rc = host_setup_read(inv, &s);
	if (rc < 0)
		return rc;
	if (host_setup_exists() && !s.force)
		rc = err_set_status(&inv->err, EEXIST, STATUS(NEEDS_FORCE), "this host is in a cluster already (%s is there); --force sets that aside",
				    PATH_HOST_CONFIG);
	if (rc == 0)
		rc = check_stopped(inv, c);
	if (rc == 0)
		rc = join_and_write(inv, &s);
	if (rc == 0)
		rc = host_services_start(inv, invocation_option(inv, "no-start") != NULL);
	uint64_t deadline = start_deadline(inv);
	if (rc == 0)
		rc = wait_for_daemon(inv, c, deadline);
	if (rc == 0)
		rc = wait_until_online(inv, c, s.name, deadline);
	if (rc == 0 && inv->format == OUTPUT_TABLE)
		printf("Host %s is online.\n", s.name);
	host_setup_clear(&s);
	return rc;
}
