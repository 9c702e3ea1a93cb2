{{/*
coordinator.toml as the values say it, with the paths of the pod. Memberships, roster and permits are
no settings: they lie in the state.
*/}}

{{- define "larrey.coordinatorToml" -}}
{{- $operators := list -}}
{{- range .Values.operators -}}
{{- $operators = append $operators (dict "name" .name "certificate" (printf "operator-%s.crt" .name)) -}}
{{- end -}}
{{- $sites := list -}}
{{- range .Values.sites -}}
{{- $sites = append $sites (dict "name" .name "certificate" (printf "site-%s.crt" .name) "key" .key) -}}
{{- end -}}
{{- $identity := dict
  "certificate" "/run/secrets/larrey/tls/tls.crt"
  "key" "/run/secrets/larrey/tls/tls.key"
  "authority" "/run/secrets/larrey/tls/ca.crt"
  "signing_key" "/run/secrets/larrey/signing/signing.key" -}}
{{- if .Values.authority.existingSecret -}}
{{- $_ := set $identity "authority_key" "/run/secrets/larrey/authority/ca.key" -}}
{{- $_ := set $identity "certificate" "/var/lib/larrey/tls.crt" -}}
{{- end -}}
{{- toToml (dict
  "coordinator" (set (deepCopy .Values.coordinator) "state" "/var/lib/larrey")
  "listen" (dict "address" "0.0.0.0:9443" "metrics" "0.0.0.0:9464")
  "identity" $identity
  "consortium" .Values.consortium
  "operators" $operators
  "sites" $sites) -}}
{{- end }}

{{/*
A Secret cannot be written to: the certificate, which is public, is copied into the state, where the
coordinator issues it anew for the same key before it ends.
*/}}
{{- define "larrey.certificate" -}}
- name: certificate
  image: {{ include "larrey.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [cp, --remove-destination, /run/secrets/larrey/tls/tls.crt, /var/lib/larrey/tls.crt]
  {{- include "larrey.containerSecurity" . | nindent 2 }}
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  volumeMounts:
    - name: tls
      mountPath: /run/secrets/larrey/tls
      readOnly: true
    - name: state
      mountPath: /var/lib/larrey
{{- end }}
