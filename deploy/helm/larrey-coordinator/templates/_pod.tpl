{{/*
What both charts share: names, image references, the restricted pod, probes and volumes.
The two copies of this file are equal; a test holds them together.
*/}}

{{- define "larrey.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "larrey.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "larrey.labels" -}}
{{ include "larrey.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: larrey
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* registry/repository:tag or registry/repository@digest; the hospital's mirror wins. */}}
{{- define "larrey.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry -}}
{{- if not $registry -}}
{{- fail "no image registry: set image.registry, or global.imageRegistry for a mirror" -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s/%s@%s" $registry .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s/%s:%s" $registry .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{/* Pod Security "restricted", and no token of the cluster in the pod. */}}
{{- define "larrey.podSecurity" -}}
serviceAccountName: {{ include "larrey.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  {{- with (.Values.data).groups }}
  supplementalGroups: {{ toJson . }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "larrey.containerSecurity" -}}
securityContext:
  runAsNonRoot: true
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "larrey.env" -}}
- name: HOME
  value: /tmp
- name: FLWR_HOME
  value: /tmp/flwr
- name: FLWR_TELEMETRY_ENABLED
  value: "0"
- name: FLWR_DISABLE_UPDATE_CHECK
  value: "1"
- name: FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION
  value: "1"
- name: PROMETHEUS_DISABLE_CREATED_SERIES
  value: "true"
{{- end }}

{{/* Two minutes to start: a ledger or journal is verified before a program answers. */}}
{{- define "larrey.probes" -}}
startupProbe:
  httpGet:
    path: /livez
    port: metrics
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /livez
    port: metrics
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: metrics
  periodSeconds: 10
  timeoutSeconds: 5
{{- end }}

{{- define "larrey.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "larrey.stateClaim" -}}
{{- default (printf "%s-state" (include "larrey.name" .)) .Values.state.existingClaim -}}
{{- end }}

{{/* Metrics are for the cluster's own monitoring, nobody else. */}}
{{- define "larrey.monitoringIngress" -}}
- from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.networkPolicy.monitoringNamespace }}
  ports:
    - protocol: TCP
      port: 9464
{{- end }}
