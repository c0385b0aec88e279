/* TLS 1.3 contexts of OpenSSL for the cluster's own CA, and the CA itself. A host's certificate
 * has CN = host name, O = cluster uuid, SAN dns = host name; both are checked on both sides.
 * Keys are EC P-256. */
#pragma once

#include <stdbool.h>
#include <openssl/ssl.h>

#include "lib/buf.h"
#include "lib/err.h"

struct tls_context {
	SSL_CTX *ctx;
	char *cluster_uuid;              /* NULL: any (join) */
	bool join;                       /* made by tls_context_for_join() */
	unsigned char ca_fingerprint[32]; /* join: SHA-256 of the only CA that is trusted */
};

/* SHA-256 fingerprints travel as 64 hex digits; colons and upper case are accepted too. */
#define TLS_FINGERPRINT_HEX 64

/* Loads CA, certificate and key (paths); the cluster uuid is that of our own certificate. Errors name the file. */
int tls_context_load(const char *ca_path, const char *cert_path, const char *key_path, struct tls_context **ret, struct err *err);
/* A client that has no certificate yet: trusts a server only if the CA in its chain has this SHA-256 fingerprint (hex). */
int tls_context_for_join(const char *ca_fingerprint_hex, struct tls_context **ret, struct err *err);
void tls_context_free(struct tls_context *tls);

/* ---- the CA; all PEM ---- */
int pki_make_ca(const char *cluster_name, const char *cluster_uuid, struct buf *ret_cert, struct buf *ret_key, struct err *err);
int pki_make_request(const char *host, struct buf *ret_csr, struct buf *ret_key, struct err *err);
/* Signs a request for exactly this host name and cluster; anything else in the request is ignored. Valid for 10 years. */
int pki_sign(const struct buf *ca_cert, const struct buf *ca_key, const struct buf *csr, const char *host, const char *cluster_uuid, struct buf *ret_cert, struct err *err);
int pki_fingerprint(const struct buf *cert, char ret_hex[65], struct err *err);
/* Common name and organization of a certificate. Owner: caller (free). Exactly one of each is wanted, and the
 * name must be a subject alternative name too: -EACCES otherwise. For rpc_tls.c, and to show a certificate. */
int pki_certificate_names(X509 *cert, char **ret_host, char **ret_cluster_uuid, struct err *err);
/* Letters, digits, '-', '.', '_'; 1 to LIMIT_HOST_NAME_CHARS of them, the first a letter or digit. */
bool pki_host_name_ok(const char *host);
