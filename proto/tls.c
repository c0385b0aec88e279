#include "proto/tls.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/pem.h>

/* Why OpenSSL could not use a file, in its own words but without its codes. */
static int tls__file_error(struct err *err, const char *what, const char *path)
{
	unsigned long code = ERR_peek_error();
	const char *reason = ERR_reason_error_string(code);
	int errnum = ERR_SYSTEM_ERROR(code) ? (int)ERR_GET_REASON(code) : EINVAL;

	if (ERR_SYSTEM_ERROR(code))
		reason = strerror(errnum);
	ERR_clear_error();
	return err_set(err, errnum, "%s %s cannot be used: %s", what, path, reason ? reason : "not in PEM form");
}

static void tls__ctx_settings(SSL_CTX *ctx)
{
	SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
	SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION);
	/* No resumption: a ticket would keep a removed host's session alive and be one more thing to send. */
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	/* The AES of both ends is fast wherever QEMU runs well; the other suite is for those where it is not. */
	SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
	/* The AEAD limits of RFC 8446 (5.5) are far: 2^24.5 full records are 388 GiB; OpenSSL renews the keys then. */
	SSL_CTX_set_mode(ctx, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_verify_depth(ctx, 1);
}

/* The CA is trusted, and sent along: a host that joins knows only its fingerprint. */
static int tls__load_ca(SSL_CTX *ctx, const char *path, struct err *err)
{
	X509 *ca = NULL;
	BIO *bio = BIO_new_file(path, "r");
	int rc = 0;

	if (bio)
		ca = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	if (!ca || !X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), ca) || !SSL_CTX_add1_chain_cert(ctx, ca))
		rc = tls__file_error(err, "CA certificate", path);
	X509_free(ca);
	BIO_free(bio);
	return rc;
}

static int tls__load_files(struct tls_context *tls, const char *ca_path, const char *cert_path, const char *key_path,
			   struct err *err)
{
	char *host = NULL;
	int rc;

	/* The certificate before the CA: loading a certificate clears the chain that is sent with it. */
	if (SSL_CTX_use_certificate_file(tls->ctx, cert_path, SSL_FILETYPE_PEM) != 1)
		return tls__file_error(err, "certificate", cert_path);
	rc = tls__load_ca(tls->ctx, ca_path, err);
	if (rc < 0)
		return rc;
	if (SSL_CTX_use_PrivateKey_file(tls->ctx, key_path, SSL_FILETYPE_PEM) != 1)
		return tls__file_error(err, "private key", key_path);
	if (SSL_CTX_check_private_key(tls->ctx) != 1)
		return tls__file_error(err, "private key", key_path);
	rc = pki_certificate_names(SSL_CTX_get0_certificate(tls->ctx), &host, &tls->cluster_uuid, err);
	if (rc < 0)
		return err_prefix(err, rc, "certificate %s", cert_path);
	free(host);
	return 0;
}

static struct tls_context *tls__context_new(struct err *err)
{
	struct tls_context *tls = mem_alloc(sizeof(*tls));

	ERR_clear_error();
	tls->ctx = SSL_CTX_new(TLS_method());
	if (!tls->ctx) {
		err_set(err, EIO, "OpenSSL cannot be set up: %s", ERR_reason_error_string(ERR_peek_error()));
		free(tls);
		return NULL;
	}
	tls__ctx_settings(tls->ctx);
	return tls;
}

int tls_context_load(const char *ca_path, const char *cert_path, const char *key_path, struct tls_context **ret, struct err *err)
{
	struct tls_context *tls = tls__context_new(err);
	int rc;

	if (!tls)
		return -EIO;
	rc = tls__load_files(tls, ca_path, cert_path, key_path, err);
	if (rc < 0) {
		tls_context_free(tls);
		return rc;
	}
	*ret = tls;
	return 0;
}

static int tls__fingerprint_parse(const char *hex, unsigned char out[32])
{
	unsigned digits = 0;

	for (; *hex; hex++) {
		if (*hex == ':')
			continue;
		if (!isxdigit((unsigned char)*hex) || digits == TLS_FINGERPRINT_HEX)
			return -EINVAL;
		unsigned value = isdigit((unsigned char)*hex) ? (unsigned)(*hex - '0') : (unsigned)((*hex | 32) - 'a' + 10);
		out[digits / 2] = (unsigned char)(digits % 2 ? out[digits / 2] | value : value << 4);
		digits++;
	}
	return digits == TLS_FINGERPRINT_HEX ? 0 : -EINVAL;
}

/* In place of OpenSSL's own trust: the chain must lead to the one CA whose fingerprint the user gave. */
static int tls__verify_join(X509_STORE_CTX *store_ctx, void *arg)
{
	const struct tls_context *tls = arg;
	STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(store_ctx);
	STACK_OF(X509) *trusted = sk_X509_new_null();
	int ok = 0;

	for (int i = 0; trusted && i < sk_X509_num(sent); i++) {
		unsigned char digest[EVP_MAX_MD_SIZE];
		unsigned len = 0;
		X509 *x = sk_X509_value(sent, i);

		if (X509_digest(x, EVP_sha256(), digest, &len) && len == sizeof(tls->ca_fingerprint) &&
		    memcmp(digest, tls->ca_fingerprint, len) == 0)
			sk_X509_push(trusted, x);
	}
	if (sk_X509_num(trusted) > 0) {
		X509_STORE_CTX_set0_trusted_stack(store_ctx, trusted);
		ok = X509_verify_cert(store_ctx);
		/* The stack is ours and ends here; the context must not look at it later. */
		X509_STORE_CTX_set0_trusted_stack(store_ctx, NULL);
	} else {
		X509_STORE_CTX_set_error(store_ctx, X509_V_ERR_CERT_UNTRUSTED);
	}
	sk_X509_free(trusted);
	return ok > 0;
}

int tls_context_for_join(const char *ca_fingerprint_hex, struct tls_context **ret, struct err *err)
{
	struct tls_context *tls = tls__context_new(err);

	if (!tls)
		return -EIO;
	if (tls__fingerprint_parse(ca_fingerprint_hex, tls->ca_fingerprint) < 0) {
		tls_context_free(tls);
		return err_set(err, EINVAL, "'%s' is no CA fingerprint: %d hex digits are wanted, as the member prints them with the join token",
			       ca_fingerprint_hex, TLS_FINGERPRINT_HEX);
	}
	tls->join = true;
	SSL_CTX_set_cert_verify_callback(tls->ctx, tls__verify_join, tls);
	*ret = tls;
	return 0;
}

void tls_context_free(struct tls_context *tls)
{
	if (!tls)
		return;
	SSL_CTX_free(tls->ctx);
	free(tls->cluster_uuid);
	free(tls);
}
