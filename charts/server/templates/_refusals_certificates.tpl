{{/* Certificates that nobody would take, or that nobody can make. One refusal in each line. */}}
{{- define "postern-server.refusalsOfCertificates" -}}
{{- $v := .Values }}
{{- $c := $v.certManager }}
{{- $foreign := or $v.tls.clientCASecret $v.internalTls.clientCASecret }}
{{- if and $v.revokedCerts (not (include "postern-server.asksCerts" .)) }}
revokedCerts: nobody is asked for a certificate, so revoking one keeps nobody out: set tls.clientCASecret or internalTls.clientCASecret with TLS on
{{- end }}
{{- if $c.enabled }}
{{- if $v.tls.certSecret }}
tls.certSecret: certManager.enabled makes the certificate, and would write over this Secret: give one of them
{{- end }}
{{- if and $c.issuerRef (not $c.issuerRef.name) }}
certManager.issuerRef.name: is needed; without certManager.issuerRef this release makes a CA of its own
{{- end }}
{{- if and $c.agentCertificates $v.tls.clientCASecret (not $c.issuerRef) }}
certManager.agentCertificates: this release's own CA would sign them, and tls.clientCASecret takes those of another: set certManager.issuerRef to that one's issuer, or leave tls.clientCASecret empty
{{- end }}
{{- if and (eq (toString $c.argocdCertificate) "true") $foreign (not $c.issuerRef) }}
certManager.argocdCertificate: this release's own CA would sign it, and tls.clientCASecret or internalTls.clientCASecret takes those of another: set certManager.issuerRef to that one's issuer, or argocd.clientCertSecret
{{- end }}
{{- if and $c.agentCertificates (include "postern-server.makesArgocdCert" .) }}
{{- range $i, $cluster := $v.clusters }}
{{- if or (eq $cluster.id "argocd") (has "cn:argocd" ($cluster.certificates | default list)) }}
clusters[{{ $i }}].id: its agent's certificate would have the common name of Argo CD's, argocd, and one could pass for the other: give the cluster another name, or set argocd.clientCertSecret
{{- end }}
{{- end }}
{{- end }}
{{- if not $c.internalNames }}
{{- if not (or $c.dnsNames (and $v.gateway.enabled (eq $v.gateway.tlsMode "Passthrough"))) }}
certManager.dnsNames: certManager.internalNames is false, so name what agents call this server by
{{- end }}
{{- if and $c.clientAuth (not $v.tls.clientCASecret) }}
certManager.clientAuth: certManager.internalNames is false, as for an issuer that signs for anybody, and everybody's certificates would be good: set tls.clientCASecret, or clientAuth to false
{{- end }}
{{- if and (or $v.argocd.managed $v.argocd.enabled) (include "postern-server.argocdTls" .) (not $v.argocd.url) (not $v.internalTls.certSecret) }}
argocd.url: certManager.internalNames is false, so the certificate lacks the name by which Argo CD would call the internal Service: give https:// and one of certManager.dnsNames here, or set internalTls.certSecret, or internalTls.mode to off
{{- end }}
{{- end }}
{{- end }}
{{- if $v.argocd.managed }}
{{- include "postern-server.refusalsOfArgocd" . }}
{{- end }}
{{- end }}

{{/* What the server would hand to Argo CD, and Argo CD could not enter with. */}}
{{- define "postern-server.refusalsOfArgocd" -}}
{{- $v := .Values }}
{{- $callers := include "postern-server.callersSecret" . }}
{{- $shows := include "postern-server.argocdCertSecret" . }}
{{- $known := false }}
{{- range $v.callers }}
{{- $known = or $known .networks }}
{{- end }}
{{- if include "postern-server.argocdTls" . }}
{{- if and (include "postern-server.internalCASecret" .) (not $callers) (not $shows) }}
argocd.clientCertSecret: the internal port asks for a certificate of the CA in {{ include "postern-server.internalCASecret" . }}, so every handshake of Argo CD would fail: name a Secret with a tls.crt and tls.key that this CA has signed, or set callers and argocd.tokenSecret
{{- end }}
{{- if and $v.internalTls.certSecret (not $v.argocd.caSecret) (not $v.argocd.url) }}
argocd.caSecret: Argo CD must know who signed internalTls.certSecret: name a Secret with that CA's ca.crt
{{- end }}
{{- else }}
{{- range $key := list "caSecret" "clientCertSecret" }}
{{- if get $v.argocd $key }}
argocd.{{ $key }}: Argo CD reaches the internal port by plain HTTP, where there are no certificates: set tls.enabled and tls.certSecret, certManager.enabled or an https:// argocd.url, or leave it empty
{{- end }}
{{- end }}
{{- end }}
{{- if and $v.callers (not $v.existingCallersSecret) (not $known) (not $shows) (not $v.argocd.tokenSecret) }}
argocd.tokenSecret: callers must say who they are, and Argo CD has nothing to say: name a Secret with the token of a caller, or set argocd.clientCertSecret
{{- end }}
{{- if and (not $v.serviceAccount.create) (not $v.serviceAccount.name) }}
serviceAccount.name: is needed without serviceAccount.create: argocd.managed lets the account write Secrets in {{ $v.argocd.namespace }}, and whoever runs as default must not
{{- end }}
{{- end }}
