{{/* What only a site's pod needs: keys, joining, proxy variables, a GPU, the only ways out. */}}

{{/* Both cases, because libraries differ in which they read; loopback never goes to a proxy. */}}
{{- define "larrey.proxyEnv" -}}
{{- $proxy := .Values.proxy -}}
{{- if and $proxy.url $proxy.existingSecret -}}
{{- fail "proxy.url and proxy.existingSecret are both set: choose one" -}}
{{- end -}}
{{- if ne (not (or $proxy.url $proxy.existingSecret)) (not $proxy.endpoints) -}}
{{- fail "a proxy needs both its URL (proxy.url or proxy.existingSecret) and its addresses (proxy.endpoints)" -}}
{{- end -}}
{{- if $proxy.endpoints -}}
{{- range list "https_proxy" "HTTPS_PROXY" }}
- name: {{ . }}
  {{- if $proxy.url }}
  value: {{ $proxy.url | quote }}
  {{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ $proxy.existingSecret }}
      key: url
  {{- end }}
{{- end }}
{{- range list "no_proxy" "NO_PROXY" }}
- name: {{ . }}
  value: "localhost,127.0.0.1,::1"
{{- end }}
{{- end -}}
{{- end }}

{{- define "larrey.siteResources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpu.enabled -}}
{{- $_ := set $resources.limits .Values.gpu.resource .Values.gpu.count -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{- define "larrey.endpoint" -}}
- to:
    - ipBlock:
        cidr: {{ .cidr }}
  ports:
    - protocol: TCP
      port: {{ .port }}
{{- end }}

{{/* Every way out of the pod but DNS, each once: coordinator or proxy, databases, log collector. */}}
{{- define "larrey.ways" -}}
{{- $ways := concat (default list .Values.coordinator.endpoints) (default list .Values.proxy.endpoints) -}}
{{- if not $ways -}}
{{- fail "the node could reach no coordinator: set coordinator.endpoints or proxy.endpoints, each as [{cidr: 192.0.2.10/32, port: 443}]" -}}
{{- end -}}
{{- range .Values.memberships -}}
{{- $ways = concat $ways (default list .coordinator.endpoints) -}}
{{- end -}}
{{- $ways = concat $ways (default list .Values.witness.endpoints) -}}
{{- range (include "larrey.queries" . | fromYaml).items -}}
{{- $ways = concat $ways .source.endpoints -}}
{{- end -}}
{{- toYaml (dict "items" (uniq $ways)) -}}
{{- end }}

{{- define "larrey.identityClaim" -}}
{{- default (printf "%s-identity" (include "larrey.name" .)) .Values.identity.existingClaim -}}
{{- end }}

{{/* Where the keys are: a Secret cannot be written to, so that only a claim lets them be renewed. */}}
{{- define "larrey.identityMount" -}}
- name: identity
{{- if .Values.identity.existingSecret }}
  mountPath: /run/secrets/larrey/identity
  readOnly: true
{{- else }}
  mountPath: /var/lib/larrey-node
{{- end }}
{{- end }}

{{/*
Before the node starts: join with an invitation that this claim has not seen. Only a joining that
succeeded is remembered; one that was cut is repeated with the same keys. Takes `root`, the release,
`join`, and `name` of a further membership, which joins after the first one; empty for that.
*/}}
{{- define "larrey.join" -}}
{{- $suffix := ternary (printf "-%s" .name) "" (not (not .name)) -}}
{{- $option := ternary (printf " --membership %s" .name) "" (not (not .name)) -}}
{{- $join := .join -}}
{{- with .root -}}
- name: join{{ $suffix }}
  image: {{ include "larrey.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    - sh
    - -euc
    - |
      cd /var/lib/larrey-node
      sha256sum --check --status joined{{ $suffix }} 2>/dev/null && exit 0
      larrey-site join "$0" --dir /var/lib/larrey-node --fingerprint "$1"{{ $option }}
      sha256sum "$0" > joined{{ $suffix }}
    - /run/secrets/larrey/join/site.invite
    - {{ $join.fingerprint }}
  {{- include "larrey.containerSecurity" . | nindent 2 }}
  env:
    {{- include "larrey.siteEnv" . | nindent 4 }}
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  volumeMounts:
    {{- include "larrey.identityMount" . | nindent 4 }}
    - name: join{{ $suffix }}
      mountPath: /run/secrets/larrey/join
      readOnly: true
    - name: tmp
      mountPath: /tmp
{{- end }}
{{- end }}

{{/* What is still to be joined, first membership first, as {"items": [{name, join}]}. */}}
{{- define "larrey.joins" -}}
{{- $joins := list -}}
{{- if .Values.join.existingSecret -}}
{{- $joins = append $joins (dict "name" "" "join" .Values.join) -}}
{{- end -}}
{{- range .Values.memberships -}}
{{- if (.join).existingSecret -}}
{{- $joins = append $joins (dict "name" .name "join" .join) -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "items" $joins) -}}
{{- end }}

{{- define "larrey.siteEnv" -}}
{{- include "larrey.env" . }}
- name: LARREY_SITE_CONFIG
  value: /etc/larrey/site.toml
{{- with include "larrey.proxyEnv" . | trim }}
{{ . }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
