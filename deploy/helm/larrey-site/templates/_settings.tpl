{{/*
site.toml as the values say it, with the paths of the pod. What the chart writes from other values
(paths, device, memory) is no value itself, so that nothing is said twice.
*/}}

{{- define "larrey.siteToml" -}}
{{- include "larrey.requireWhole" . -}}
{{- $secret := .Values.identity.existingSecret -}}
{{- $home := ternary "/run/secrets/larrey/identity" "/var/lib/larrey-node/identity" (not (not $secret)) -}}
{{- $authority := ternary "/run/secrets/larrey/ca" $home (not (not .Values.ca.existingSecret)) -}}
{{- $names := ternary (list "tls.crt" "tls.key" "signing.key") (list "site.crt" "site.key" "signing.ed25519") (not (not $secret)) -}}
{{- $datasets := list -}}
{{- range .Values.datasets -}}
{{- $datasets = append $datasets (include "larrey.dataset" . | fromYaml) -}}
{{- end -}}
{{- $trainer := deepCopy .Values.trainer -}}
{{- $_ := set $trainer "device" (ternary "cuda" "cpu" .Values.gpu.enabled) -}}
{{- $_ := set $trainer "memory_mb" (include "larrey.trainerMemory" . | int64) -}}
{{- $witness := dict "syslog" .Values.witness.syslog -}}
{{- if .Values.witness.existingClaim -}}
{{- $_ := set $witness "file" (printf "/var/lib/larrey-witness/%s" .Values.witness.file) -}}
{{- end -}}
{{- $memberships := list -}}
{{- range .Values.memberships -}}
{{- $place := ternary (printf "/run/secrets/larrey/memberships/%s" .name) (printf "%s/%s" $home .name) (not (not $secret)) -}}
{{- $memberships = append $memberships (dict
  "name" .name
  "coordinator" (dict "address" .coordinator.address "authority" (printf "%s/ca.crt" $place))
  "identity" (dict "certificate" (printf "%s/%s" $place (index $names 0)) "key" (printf "%s/%s" $place (index $names 1)))
  "consortium" .consortium) -}}
{{- end -}}
{{- $settings := dict
  "site" (dict "name" .Values.site.id "state" "/var/lib/larrey" "metrics" "0.0.0.0:9464")
  "coordinator" (dict "address" .Values.coordinator.address "authority" (printf "%s/ca.crt" $authority))
  "identity" (dict
    "certificate" (printf "%s/%s" $home (index $names 0))
    "key" (printf "%s/%s" $home (index $names 1))
    "signing_key" (printf "%s/%s" $home (index $names 2)))
  "consortium" .Values.consortium
  "trainer" $trainer
  "witness" $witness
  "datasets" $datasets
  "people" .Values.people
  "policy" .Values.policy -}}
{{- if $memberships -}}
{{- $_ := set $settings "memberships" $memberships -}}
{{- end -}}
{{- toToml $settings -}}
{{- end }}

{{/* One [[datasets]] entry: a query lies beside site.toml, its connection string in a mounted Secret. */}}
{{- define "larrey.dataset" -}}
{{- $dataset := deepCopy . -}}
{{- with $dataset.source -}}
{{- if eq .kind "sql" -}}
{{- $files := dict
  "dsn_file" (printf "/run/secrets/larrey/dsn/%s/%s" $dataset.name (default "dsn" .dsn.key))
  "query_file" (printf "/etc/larrey/%s.sql" $dataset.name) -}}
{{- $_ := set $dataset "source" (merge (omit . "dsn" "query" "endpoints") $files) -}}
{{- end -}}
{{- end -}}
{{- toYaml $dataset -}}
{{- end }}

{{/* The datasets that come from a database, as {"items": […]}. */}}
{{- define "larrey.queries" -}}
{{- $queries := list -}}
{{- range .Values.datasets -}}
{{- if eq (default "" (.source).kind) "sql" -}}
{{- $queries = append $queries . -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "items" $queries) -}}
{{- end }}

{{/* MiB of the trainer's own: the pod's limit, which counts every process, less the agent's share. */}}
{{- define "larrey.trainerMemory" -}}
{{- $limit := include "larrey.mebibytes" .Values.resources.limits.memory | int64 -}}
{{- $left := sub $limit (include "larrey.mebibytes" .Values.agentMemory | int64) -}}
{{- if lt $left 1024 -}}
{{- fail (printf "resources.limits.memory less agentMemory leaves the trainer %d MiB: it needs 1024" $left) -}}
{{- end -}}
{{- $left -}}
{{- end }}

{{- define "larrey.mebibytes" -}}
{{- $bytes := 0.0 -}}
{{- if kindIs "string" . -}}
{{- $factors := dict "" 1.0 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $bytes = mulf (regexFind "^[0-9.]+" .) (get $factors (regexFind "[A-Za-z]*$" .)) -}}
{{- else -}}
{{- $bytes = float64 . -}}
{{- end -}}
{{- divf $bytes 1048576.0 | floor | int64 -}}
{{- end }}

{{/* What a schema cannot say: values that need each other. */}}
{{- define "larrey.requireWhole" -}}
{{- $secret := .Values.identity.existingSecret -}}
{{- if and $secret .Values.join.existingSecret -}}
{{- fail "join makes keys in a claim: leave identity.existingSecret empty" -}}
{{- end -}}
{{- if and $secret .Values.identity.existingClaim -}}
{{- fail "identity.existingSecret and identity.existingClaim are both set: choose one" -}}
{{- end -}}
{{- if ne (not .Values.join.existingSecret) (not .Values.join.fingerprint) -}}
{{- fail "joining needs both the invitation (join.existingSecret) and the consortium's fingerprint as it was read out by phone (join.fingerprint)" -}}
{{- end -}}
{{- if and .Values.ca.existingSecret (not $secret) -}}
{{- fail "ca.existingSecret goes with identity.existingSecret: in a claim the node keeps the authority itself" -}}
{{- end -}}
{{- range .Values.memberships -}}
{{- if or (eq .name "first") (hasSuffix "-" .name) -}}
{{- fail (printf "a membership cannot be called '%s': 'first' is the coordinator's own, and a name ends in a letter or digit" .name) -}}
{{- end -}}
{{- if ne (not $secret) (not (.identity).existingSecret) -}}
{{- fail (printf "membership '%s': its identity.existingSecret goes with identity.existingSecret; in a claim joining makes the keys" .name) -}}
{{- end -}}
{{- if and $secret (.join).existingSecret -}}
{{- fail (printf "membership '%s': join makes keys in a claim: leave identity.existingSecret empty" .name) -}}
{{- end -}}
{{- if ne (not (.join).existingSecret) (not (.join).fingerprint) -}}
{{- fail (printf "membership '%s': joining needs both join.existingSecret and join.fingerprint" .name) -}}
{{- end -}}
{{- if not (or .coordinator.endpoints $.Values.proxy.endpoints) -}}
{{- fail (printf "membership '%s' could reach no coordinator: set its coordinator.endpoints" .name) -}}
{{- end -}}
{{- end -}}
{{- if ne (not .Values.witness.syslog) (not .Values.witness.endpoints) -}}
{{- fail "a log collector needs both witness.syslog and its addresses, witness.endpoints" -}}
{{- end -}}
{{- range .Values.datasets -}}
{{- if and (ne (default "file" (.source).kind) "sql") (not $.Values.data.existingClaim) -}}
{{- fail (printf "dataset '%s' lies in /data: set data.existingClaim" .name) -}}
{{- end -}}
{{- end -}}
{{- end }}
