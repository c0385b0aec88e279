#include "proto/rpc_tls.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>

#include "lib/cleanup.h"

enum {
	RPC_TLS_RECORD_BYTES = 16 << 10,
	/* Only a label: nobody looks this BIO up by type. BIO_get_new_index() would run out after 127 connections. */
	RPC_TLS_BIO_TYPE = BIO_TYPE_SOURCE_SINK | 100,
};

struct rpc_tls {
	SSL *ssl;
	const struct tls_context *context;
	BIO_METHOD *method;
	const uint8_t *in; /* lent by rpc_tls_input() */
	size_t in_len;
	struct buf *out;
	char *label, *expected_name, *peer;
	bool server, ready, broken;
};

/* A BIO over our own buffers: OpenSSL's memory BIO would copy everything once more and wipe it at each reset. */
static int rpc_tls__bio_read(BIO *bio, char *data, size_t len, size_t *ret_len)
{
	struct rpc_tls *t = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (!t->in_len) {
		BIO_set_retry_read(bio);
		return 0;
	}
	if (len > t->in_len)
		len = t->in_len;
	memcpy(data, t->in, len);
	t->in += len;
	t->in_len -= len;
	*ret_len = len;
	return 1;
}

static int rpc_tls__bio_write(BIO *bio, const char *data, size_t len, size_t *ret_len)
{
	struct rpc_tls *t = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	buf_append(t->out, data, len);
	*ret_len = len;
	return 1;
}

static long rpc_tls__bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP;
}

static BIO *rpc_tls__bio_new(struct rpc_tls *t)
{
	BIO *bio;

	t->method = BIO_meth_new(RPC_TLS_BIO_TYPE, "gantry buffers");
	if (!t->method)
		return NULL;
	BIO_meth_set_read_ex(t->method, rpc_tls__bio_read);
	BIO_meth_set_write_ex(t->method, rpc_tls__bio_write);
	BIO_meth_set_ctrl(t->method, rpc_tls__bio_ctrl);
	bio = BIO_new(t->method);
	if (bio) {
		BIO_set_data(bio, t);
		BIO_set_init(bio, 1);
	}
	return bio;
}

int rpc_tls_new(const struct tls_context *tls, bool server, bool cert_required, const char *expected_name,
		const char *label, struct buf *out, struct rpc_tls **ret, struct err *err)
{
	struct rpc_tls *t = mem_alloc(sizeof(*t));
	BIO *bio;

	*t = (struct rpc_tls){.context = tls, .out = out, .server = server, .label = str_dup(label),
			      .expected_name = str_dup(expected_name)};
	t->ssl = SSL_new(tls->ctx);
	bio = t->ssl ? rpc_tls__bio_new(t) : NULL;
	if (!bio) {
		rpc_tls_free(t);
		return err_set(err, ENOMEM, "%s: no TLS session can be made", label);
	}
	SSL_set_bio(t->ssl, bio, bio);
	if (server) {
		if (!cert_required)
			SSL_set_verify(t->ssl, SSL_VERIFY_PEER, NULL);
		SSL_set_accept_state(t->ssl);
	} else {
		SSL_set_connect_state(t->ssl);
	}
	*ret = t;
	return 0;
}

struct rpc_tls *rpc_tls_free(struct rpc_tls *t)
{
	if (!t)
		return NULL;
	SSL_free(t->ssl);
	BIO_meth_free(t->method);
	free(t->label);
	free(t->expected_name);
	free(t->peer);
	free(t);
	return NULL;
}

void rpc_tls_input(struct rpc_tls *t, const void *data, size_t len)
{
	t->in = data;
	t->in_len = len;
}

const char *rpc_tls_peer(const struct rpc_tls *t)
{
	return t->peer;
}

/* The reasons that people meet, said so that they can act on them. */
static int rpc_tls__explain(struct rpc_tls *t, struct err *err)
{
	unsigned long code = ERR_peek_error();
	const char *reason = ERR_reason_error_string(code);
	long verify = SSL_get_verify_result(t->ssl);

	switch (ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0) {
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		if (t->context->join)
			return err_set(err, EACCES, "%s: the CA of this host does not have the fingerprint you gave "
				       "(or the certificate is not valid: %s): check the fingerprint and the address",
				       t->label, X509_verify_cert_error_string(verify));
		return err_set(err, EACCES, "%s: the certificate is not of our cluster's CA (%s): is that host a member "
			       "of this cluster, and is its clock right?", t->label, X509_verify_cert_error_string(verify));
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return err_set(err, EACCES, "%s: the peer shows no certificate: only hosts of the cluster are let in", t->label);
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
		return err_set(err, EACCES, "%s wants a certificate of the cluster: join this host first", t->label);
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
		return err_set(err, EACCES, "%s does not accept our certificate (%s): are both hosts of the same cluster, and "
			       "the clocks right?", t->label, reason);
	default:
		return err_set(err, EPROTO, "%s does not speak TLS 1.3 as we do (%s): is it the right port?", t->label,
			       reason ? reason : "unreadable");
	}
}

/* The chain is verified; now the names that make it a host of this cluster, and the right one. */
static int rpc_tls__check_names(struct rpc_tls *t, X509 *cert, struct err *err)
{
	const char *wanted = t->context->cluster_uuid;
	char *host = NULL, *uuid = NULL;
	int rc;

	rc = pki_certificate_names(cert, &host, &uuid, err);
	if (rc < 0)
		return err_prefix(err, rc, "%s", t->label);
	if (wanted && strcmp(wanted, uuid) != 0)
		rc = err_set(err, EACCES, "%s: the certificate of host '%s' is of cluster %s, this is cluster %s", t->label,
			     host, uuid, wanted);
	else if (t->expected_name && strcmp(t->expected_name, host) != 0)
		rc = err_set(err, EACCES, "%s is host '%s', but '%s' was expected there: check the addresses of the hosts",
			     t->label, host, t->expected_name);
	else
		t->peer = TAKE_PTR(host);
	free(host);
	free(uuid);
	return rc;
}

static int rpc_tls__check_peer(struct rpc_tls *t, struct err *err)
{
	X509 *cert = SSL_get1_peer_certificate(t->ssl);
	int rc;

	/* Without one the handshake ends only where none is required. */
	if (!cert)
		return t->server ? 0 : err_set(err, EACCES, "%s: the server shows no certificate", t->label);
	rc = rpc_tls__check_names(t, cert, err);
	X509_free(cert);
	return rc;
}

int rpc_tls_handshake(struct rpc_tls *t, bool *ret_can_refuse, struct err *err)
{
	int rc, why;

	ERR_clear_error();
	*ret_can_refuse = false;
	rc = SSL_do_handshake(t->ssl);
	why = rc == 1 ? SSL_ERROR_NONE : SSL_get_error(t->ssl, rc);
	if (why == SSL_ERROR_WANT_READ)
		return 0;
	if (why != SSL_ERROR_NONE) {
		t->broken = true;
		rc = rpc_tls__explain(t, err);
		ERR_clear_error();
		return rc;
	}
	t->ready = true;
	rc = rpc_tls__check_peer(t, err);
	*ret_can_refuse = rc < 0;
	return rc < 0 ? rc : 1;
}

int rpc_tls_read(struct rpc_tls *t, struct frame_parser *parser, struct err *err)
{
	for (;;) {
		void *room = frame_parser_reserve(parser, RPC_TLS_RECORD_BYTES);
		size_t len = 0;
		int rc, why;

		ERR_clear_error();
		rc = SSL_read_ex(t->ssl, room, RPC_TLS_RECORD_BYTES, &len);
		if (rc == 1) {
			frame_parser_commit(parser, len);
			continue;
		}
		why = SSL_get_error(t->ssl, rc);
		if (why == SSL_ERROR_WANT_READ)
			return 0;
		if (why == SSL_ERROR_ZERO_RETURN)
			return 1;
		t->broken = true;
		rc = rpc_tls__explain(t, err);
		ERR_clear_error();
		return rc;
	}
}

int rpc_tls_write(struct rpc_tls *t, const void *data, size_t len)
{
	size_t written = 0;

	assert(t->ready);
	if (!len)
		return 0;
	ERR_clear_error();
	/* The BIO takes everything, so this never has to be tried again. */
	if (!t->broken && SSL_write_ex(t->ssl, data, len, &written) == 1 && written == len)
		return 0;
	t->broken = true;
	return -EPIPE;
}

void rpc_tls_goodbye(struct rpc_tls *t)
{
	/* OpenSSL forbids a shutdown after a fatal error. */
	if (!t->ready || t->broken)
		return;
	ERR_clear_error();
	SSL_shutdown(t->ssl);
	ERR_clear_error();
}
