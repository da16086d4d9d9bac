"""The table: what providers say, what it means and what mends it. It is all that `explain` knows.

The first row that fits wins, so rows stand from the particular to the general; Entra's codes are
details of an OAuth error, and Microsoft reserves the right to change them.
"""

from __future__ import annotations

from xoauth2_proxy.diagnostics.advice import ASK_THE_DOCTOR, MAILBOX, SIGN_IN_AGAIN, Advice, Retry

_ENTRA = "https://learn.microsoft.com/entra/identity-platform/reference-error-codes"


def _entra(
    numbers: str, cause: str, remedy: str, example: str, retry: Retry = Retry.NEVER
) -> Advice:
    return Advice(
        says=(" | ".join(f"aadsts{number}" for number in numbers.split()),),
        provider="outlook",
        cause=cause,
        remedy=remedy,
        retry=retry,
        source=_ENTRA,
        example=example,
    )


_ENTRA_ROWS = (
    _entra(
        "700082 70008",
        "The sign-in was not used for so long (90 days, as a rule) that Microsoft ended it.",
        SIGN_IN_AGAIN,
        "invalid_grant: AADSTS700082: The refresh token has expired due to inactivity.",
    ),
    _entra(
        "700084",
        "The sign-in was made for a web page's script, which Microsoft ends after a day.",
        "in the app registration: Authentication, replace the platform Single-page application by "
        f"Mobile and desktop applications; then xoauth2-proxy login {MAILBOX}",
        "invalid_grant: AADSTS700084: The refresh token was issued to a single page app (SPA).",
    ),
    _entra(
        "70043 50078 50089",
        "The organisation lets sign-ins last for a limited time only, and this one is over.",
        f"{SIGN_IN_AGAIN}; to make it last, exclude the mailbox from the sign-in frequency policy",
        "invalid_grant: AADSTS70043: The refresh token has expired or is invalid due to sign-in "
        "frequency checks by conditional access.",
    ),
    _entra(
        "50173 50132 50133 70000 700081",
        "The sign-in was revoked: the password was changed, or somebody ended all sessions.",
        SIGN_IN_AGAIN,
        "invalid_grant: AADSTS50173: The provided grant has expired due to it being revoked.",
    ),
    _entra(
        "50076 50079 50158 50072 50074",
        "Microsoft wants a second factor, which a person has to give.",
        SIGN_IN_AGAIN,
        "interaction_required: AADSTS50076: Due to a configuration change made by your "
        "administrator, you must use multi-factor authentication.",
    ),
    _entra(
        "53000 53001 53002 53003 53004 53011 50131 50097 530035",
        "A Conditional Access policy of the organisation blocks this application.",
        "in the Microsoft Entra admin center: Monitoring & health > Sign-in logs, find the failed "
        "sign-in and the policy it names; exclude this application or mailbox, then "
        f"xoauth2-proxy login {MAILBOX}",
        "invalid_grant: AADSTS53003: Access has been blocked by Conditional Access policies.",
    ),
    _entra(
        "50105",
        "The user is not assigned to the application.",
        "in the Microsoft Entra admin center: Enterprise applications > the application > Users "
        f"and groups > Add {MAILBOX}",
        "invalid_grant: AADSTS50105: The signed in user is not assigned to a role for the "
        "application.",
    ),
    _entra(
        "50034 50020 51004 50014 16000 500208",
        "The user does not exist in this tenant, or is of another kind (personal, work or school).",
        'look at "tenant" of the account: consumers for personal accounts, else the '
        "organisation's own id",
        "invalid_grant: AADSTS50034: The user account does not exist in the directory.",
    ),
    _entra(
        "50057",
        "The user's account is disabled.",
        "in the Microsoft Entra admin center: Users > the user > Edit properties > Account enabled",
        "invalid_grant: AADSTS50057: The user account is disabled.",
    ),
    _entra(
        "50055 50144",
        "The user's password has expired.",
        f"change the password, then xoauth2-proxy login {MAILBOX}",
        "invalid_grant: AADSTS50055: The password is expired.",
    ),
    _entra(
        "50053",
        "Microsoft has locked the account for a while, after wrong passwords or from this address.",
        "wait some minutes; if it lasts, look into the Sign-in logs of the Microsoft Entra admin "
        "center",
        "invalid_grant: AADSTS50053: The account is locked because the user tried to sign in too "
        "many times.",
        Retry.LATER,
    ),
    _entra(
        "65001 65004 90008",
        "Nobody has consented to the application's permissions.",
        f"sign in and consent: xoauth2-proxy login {MAILBOX}; or as an administrator: app "
        "registration > API permissions > Grant admin consent",
        "invalid_grant: AADSTS65001: The user or administrator has not consented to use the "
        "application.",
    ),
    _entra(
        "7000222",
        "The client secret has expired.",
        "app registration > Certificates & secrets > New client secret; put its value into "
        '"client_secret" and its end into "client_secret_expires"',
        "invalid_client: AADSTS7000222: The provided client secret keys are expired.",
    ),
    _entra(
        "7000215 70002",
        "The client secret is wrong.",
        'app registration > Certificates & secrets; "client_secret" is the secret\'s Value, not '
        "its Secret ID",
        "invalid_client: AADSTS7000215: Invalid client secret is provided.",
    ),
    _entra(
        "700027 50012 700030",
        "Microsoft does not know the certificate that the relay signed with.",
        "app registration > Certificates & secrets > Certificates: upload the certificate of "
        '"certificate"',
        "invalid_client: AADSTS700027: Client assertion failed signature validation.",
    ),
    _entra(
        "700016 700011 70001",
        "The application does not exist in this tenant, or is disabled.",
        'look at "client_id" and "tenant" of the account',
        "unauthorized_client: AADSTS700016: Application with identifier was not found in the "
        "directory.",
    ),
    _entra(
        "50194",
        "The application is for one tenant, and was asked for through another.",
        'set "tenant" of the account to the organisation\'s own id',
        "invalid_request: AADSTS50194: Application is not configured as a multi-tenant "
        "application.",
    ),
    _entra(
        "7000218",
        "The application is registered as one that keeps a secret, and none was sent.",
        'set "client_secret", or: app registration > Authentication > Allow public client flows',
        "invalid_client: AADSTS7000218: The request body must contain the following parameter: "
        "'client_assertion' or 'client_secret'.",
    ),
    _entra(
        "700025",
        "The application is registered as a public one, and a secret was sent.",
        'remove "client_secret" from the account',
        "invalid_client: AADSTS700025: Client is public so neither 'client_assertion' nor "
        "'client_secret' should be presented.",
    ),
    _entra(
        "70011 28002 650057 65005 650056 500011 50001",
        "The application was not given the permission that was asked for.",
        "app registration > API permissions > Add > Office 365 Exchange Online or Microsoft Graph "
        "> SMTP.Send (for an application of its own: SMTP.SendAsApp), then Grant admin consent",
        "invalid_scope: AADSTS70011: The provided value for the input parameter 'scope' is not "
        "valid.",
    ),
    _entra(
        "90002 50128 50059 90019 9001023 9002332",
        "There is no such tenant, or it does not serve this kind of account.",
        'look at "tenant" of the account: an id or a domain of the organisation',
        "invalid_request: AADSTS90002: Tenant 'exmaple.com' not found.",
    ),
    _entra(
        "900144 9002313 90014",
        "A parameter of the token request is missing or malformed.",
        'look at "client_id", "scopes" and "parameters" of the account',
        "invalid_request: AADSTS900144: The request body must contain the following parameter: "
        "'scope'.",
    ),
    _entra(
        "54005 70019",
        "The code of the sign-in was used already, or is too old.",
        f"sign in once more: xoauth2-proxy login {MAILBOX}",
        "invalid_grant: AADSTS54005: OAuth2 Authorization code was already redeemed.",
    ),
    _entra(
        "90033 90006 90012 50000 90024 50033 90055 70012 50196",
        "Microsoft's sign-in service is in trouble, or asked too often.",
        "wait; the relay tries again by itself",
        "temporarily_unavailable: AADSTS90033: A transient error has occurred. Please try again.",
        Retry.LATER,
    ),
)

_GMAIL = "https://support.google.com/a/answer/3726730"
_GMAIL_LIMITS = "https://support.google.com/a/answer/166852"
_GOOGLE = "https://developers.google.com/identity/protocols/oauth2"
_DELEGATION = "https://developers.google.com/identity/protocols/oauth2/service-account"

_GMAIL_ROWS = (
    Advice(
        says=("^534", "5.7.14"),
        provider="gmail",
        cause="Google wants a person to confirm in a browser that this login is theirs.",
        remedy=f"sign in to {MAILBOX} in a browser and confirm the activity; then "
        f"xoauth2-proxy login {MAILBOX}",
        source=_GMAIL,
        example="534 5.7.14 Please log in via your web browser and then try again. - gsmtp",
    ),
    Advice(
        says=("^534 | ^535", "5.7.9 | application specific password"),
        provider="gmail",
        cause="Somebody logged in with a password, where Google wants OAuth.",
        remedy="point the mail client at this relay instead of smtp.gmail.com",
        source=_GMAIL,
        example="534 5.7.9 Application-specific password required. - gsmtp",
    ),
    Advice(
        says=("^535", "5.7.8", "username and password not accepted | gsmtp | badcredentials"),
        provider="gmail",
        cause="Gmail refused the token: another user's, without the scope https://mail.google.com/,"
        " or revoked.",
        remedy=SIGN_IN_AGAIN,
        retry=Retry.FRESH_TOKEN,
        source=_GMAIL,
        example="535 5.7.8 Username and Password not accepted. For more information, go to "
        "https://support.google.com/mail/?p=BadCredentials - gsmtp",
    ),
    Advice(
        says=("^454", "4.7.0", "too many login attempts"),
        provider="gmail",
        cause="The mailbox logs in too often; Google does not say how often it may.",
        remedy="let connections live longer (limits.max_connection_age_seconds, "
        "limits.max_messages_per_connection), and stop other programs that log in",
        retry=Retry.LATER,
        source=_GMAIL,
        example="454 4.7.0 Too many login attempts, please try again later. - gsmtp",
    ),
    Advice(
        says=("^454", "4.7.0", "gsmtp | cannot authenticate due to temporary system problem"),
        provider="gmail",
        cause="Google has a passing trouble with logins.",
        remedy="wait; the client should try again",
        retry=Retry.LATER,
        source=_GMAIL,
        example="454 4.7.0 Cannot authenticate due to temporary system problem. Try again later. "
        "- gsmtp",
    ),
    Advice(
        says=("^421", "4.7.28 | unusual rate"),
        provider="gmail",
        cause="Google slows this address down: it sent unusually much, or much that was unwanted.",
        remedy='set "messages_per_minute" under "limits", and look at what is being sent',
        retry=Retry.LATER,
        source=_GMAIL,
        example="421 4.7.28 Our system has detected an unusual rate of unsolicited mail. - gsmtp",
    ),
    Advice(
        says=("^421", "4.7.0", "try again later"),
        provider="gmail",
        cause="Google turns this address away for a while: too many connections or logins.",
        remedy='lower "max_connections" under "limits"; the client should try again',
        retry=Retry.LATER,
        source=_GMAIL,
        example="421 4.7.0 Try again later, closing connection. - gsmtp",
    ),
    Advice(
        says=("^550", "5.4.5"),
        provider="gmail",
        cause="The mailbox has sent as much as Google allows in 24 hours.",
        remedy="send the rest tomorrow, or from another mailbox",
        retry=Retry.TOMORROW,
        source=_GMAIL_LIMITS,
        example="550 5.4.5 Daily user sending limit exceeded. - gsmtp",
    ),
    Advice(
        says=("^550", "5.7.1", "daily smtp relay"),
        provider="gmail",
        cause="The organisation has sent as much through the SMTP relay as Google allows in a day.",
        remedy="send the rest tomorrow",
        retry=Retry.TOMORROW,
        source=_GMAIL,
        example="550 5.7.1 Daily SMTP relay sending limit exceeded for customer. - gsmtp",
    ),
    Advice(
        says=("^555", "5.5.2"),
        provider="gmail",
        cause="Gmail could not read a command of the session, as a rule an address in it.",
        remedy="look at the sender and recipient addresses of the message",
        source=_GMAIL,
        example="555 5.5.2 Syntax error, cannot decode response. - gsmtp",
    ),
    Advice(
        says=("^552", "5.7.0"),
        provider="gmail",
        cause="Gmail refuses messages with such an attachment.",
        remedy="send the file another way, or as a link",
        source=_GMAIL,
        example="552 5.7.0 This message was blocked because its content presents a potential "
        "security issue. - gsmtp",
    ),
)

_GOOGLE_ROWS = (
    Advice(
        says=("invalid_rapt | rapt_required",),
        provider="gmail",
        cause="The organisation ends sign-ins after some hours (Google Cloud session control).",
        remedy="Google Admin console > Security > Access and data control > Google Cloud session "
        f"control: exempt the application; then xoauth2-proxy login {MAILBOX}",
        source=_GOOGLE,
        example="invalid_grant: reauth related error (invalid_rapt)",
    ),
    Advice(
        says=("admin_policy_enforced",),
        provider="gmail",
        cause="The Google Workspace administrator does not allow this application.",
        remedy="Google Admin console > Security > Access and data control > API controls: trust "
        "the client id",
        source=_GOOGLE,
        example="admin_policy_enforced: This account is restricted by your administrator.",
    ),
    Advice(
        says=("org_internal",),
        provider="gmail",
        cause="The application is for another organisation's users only.",
        remedy="sign in with an address of that organisation, or make the application External in "
        "the Google Cloud console",
        source=_GOOGLE,
        example="org_internal: This client is restricted to users within its organization.",
    ),
    Advice(
        says=("deleted_client | disabled_client",),
        provider="gmail",
        cause="The OAuth client was deleted or disabled in the Google Cloud console.",
        remedy="make a new OAuth client, put its id and secret into the account, then "
        f"xoauth2-proxy login {MAILBOX}",
        source=_GOOGLE,
        example="deleted_client: The OAuth client was deleted.",
    ),
    Advice(
        says=("unauthorized_client",),
        provider="gmail",
        is_for_provider_alone=True,
        cause="Google does not let this client ask: domain-wide delegation is not set up for it, or"
        " the sign-in was another client's.",
        remedy="for a service account: Google Admin console > Security > Access and data control "
        "> API controls > Manage domain wide delegation, scope https://mail.google.com/; else "
        f"xoauth2-proxy login {MAILBOX}",
        source=_DELEGATION,
        example="unauthorized_client: Client is unauthorized to retrieve access tokens using this "
        "method, or client not authorized for any of the scopes requested.",
    ),
    Advice(
        says=("invalid_grant", "invalid email or user id"),
        provider="gmail",
        cause="The service account speaks for an address that is no user of the organisation.",
        remedy='look at "email" of the account: it must be a user\'s primary address',
        source=_DELEGATION,
        example="invalid_grant: Invalid email or User ID",
    ),
    Advice(
        says=("invalid_grant", "short lived token | iat and exp"),
        provider="gmail",
        cause="This machine's clock is wrong.",
        remedy="set the clock, for example with: timedatectl set-ntp true",
        source=_DELEGATION,
        example="invalid_grant: Invalid JWT: Token must be a short-lived token (60 minutes) and in "
        "a reasonable timeframe. Check your iat and exp values in the JWT claim.",
    ),
    Advice(
        says=("invalid_grant", "invalid jwt signature"),
        provider="gmail",
        cause="The service account's key was deleted or is another account's.",
        remedy="Google Cloud console > IAM & Admin > Service accounts > Keys: make a new key for "
        '"service_account"',
        source=_DELEGATION,
        example="invalid_grant: Invalid JWT Signature.",
    ),
    Advice(
        says=("invalid_grant", "expired or revoked"),
        provider="gmail",
        cause="The sign-in ended: revoked, the password was changed, unused for six months, or the "
        'application\'s publishing status is "Testing", where sign-ins last 7 days.',
        remedy="Google Cloud console > Google Auth Platform > Audience: publish the application if "
        f"it is in testing; then xoauth2-proxy login {MAILBOX}",
        source=_GOOGLE,
        example="invalid_grant: Token has been expired or revoked.",
    ),
    Advice(
        says=("invalid_grant",),
        provider="gmail",
        is_for_provider_alone=True,
        cause="The sign-in is no longer valid: revoked, the password was changed, or it belongs to "
        "another client id.",
        remedy=SIGN_IN_AGAIN,
        source=_GOOGLE,
        example="invalid_grant: Bad Request",
    ),
)

_LEARN = "https://learn.microsoft.com"
_SMTP_AUTH = (
    f"{_LEARN}/exchange/clients-and-mobile-in-exchange-online/authenticated-client-smtp-submission"
)
_SMTP_OAUTH = (
    f"{_LEARN}/exchange/client-developer/legacy-protocols/"
    "how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth"
)
_SMTP_ISSUES = (
    f"{_LEARN}/exchange/mail-flow-best-practices/"
    "fix-issues-with-printers-scanners-and-lob-applications-that-send-email-using-off"
)
_LIMITS = (
    f"{_LEARN}/office365/servicedescriptions/exchange-online-service-description/"
    "exchange-online-limits"
)

_EXCHANGE_ROWS = (
    Advice(
        says=("5.7.139", "disabled for the tenant"),
        provider="outlook",
        cause="SMTP AUTH is switched off for the whole organisation.",
        remedy="in Exchange Online PowerShell, for this mailbox alone: "
        f"Set-CASMailbox {MAILBOX} -SmtpClientAuthenticationDisabled $false; or for all: "
        "Set-TransportConfig -SmtpClientAuthenticationDisabled $false",
        source=_SMTP_AUTH,
        example="535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for "
        "the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information.",
    ),
    Advice(
        says=("5.7.139", "disabled for the mailbox"),
        provider="outlook",
        cause="SMTP AUTH is switched off for this mailbox.",
        remedy="in Exchange Online PowerShell: "
        f"Set-CASMailbox {MAILBOX} -SmtpClientAuthenticationDisabled $false; or in the Microsoft "
        "365 admin center: Users > Active users > the user > Mail > Manage email apps > "
        "Authenticated SMTP",
        source=_SMTP_AUTH,
        example="535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for "
        "the Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information.",
    ),
    Advice(
        says=("5.7.139", "basic authentication is disabled"),
        provider="outlook",
        cause="Somebody logged in with a password, which Microsoft no longer takes.",
        remedy="point the mail client at this relay instead of smtp.office365.com",
        source=_SMTP_AUTH,
        example="535 5.7.139 Authentication unsuccessful, basic authentication is disabled.",
    ),
    Advice(
        says=("5.7.139", "security defaults"),
        provider="outlook",
        cause="The organisation's security defaults block SMTP AUTH for this user.",
        remedy="in the Microsoft Entra admin center: Overview > Properties > Manage security "
        "defaults; replace them by Conditional Access policies that leave this mailbox out",
        source=_SMTP_AUTH,
        example="535 5.7.139 Authentication unsuccessful, user is locked by your organization's "
        "security defaults policy. Contact your administrator.",
    ),
    Advice(
        says=("5.7.139", "conditional access | did not meet the criteria"),
        provider="outlook",
        cause="A Conditional Access policy of the organisation blocks this login.",
        remedy="in the Microsoft Entra admin center: Monitoring & health > Sign-in logs, find the "
        "failed sign-in and the policy it names; exclude this mailbox or application from it",
        source="field report",
        example="535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to "
        "be authenticated successfully. Contact your administrator.",
    ),
    Advice(
        says=("5.7.139", "credentials were incorrect"),
        provider="outlook",
        cause="Exchange Online does not take this token for this mailbox: another user's, or one "
        "without SMTP rights.",
        remedy=ASK_THE_DOCTOR,
        retry=Retry.FRESH_TOKEN,
        source="field report",
        example="535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.",
    ),
    Advice(
        says=("5.7.139",),
        provider="outlook",
        cause="A setting or policy of the organisation blocks SMTP AUTH for this mailbox.",
        remedy="in Exchange Online PowerShell: "
        f"Get-CASMailbox {MAILBOX} | fl SmtpClientAuthenticationDisabled; then the Sign-in logs "
        "of the Microsoft Entra admin center",
        source=_SMTP_AUTH,
        example="535 5.7.139 Authentication unsuccessful",
    ),
    Advice(
        says=("^535", "5.7.3"),
        provider="outlook",
        cause="Exchange Online refused the token: wrong audience (Graph instead of "
        "outlook.office.com), no SMTP permission, another user's, expired, or the mailbox has no "
        "licence.",
        remedy=f"look at the token's claims: xoauth2-proxy doctor {MAILBOX}",
        retry=Retry.FRESH_TOKEN,
        source=_SMTP_OAUTH,
        example="535 5.7.3 Authentication unsuccessful [DB8PR04CA0014.eurprd04.prod.outlook.com]",
    ),
    Advice(
        says=("^550", "5.7.30"),
        provider="outlook",
        cause="Microsoft has ended password logins for SMTP submission; this session used one.",
        remedy="point the mail client at this relay instead of smtp.office365.com",
        source="Microsoft message center MC786329",
        example="550 5.7.30 Basic authentication is not supported for Client Submission.",
    ),
    Advice(
        says=("sendasdenied | mapiexceptionsendasdenied | 5.2.252 | 5.7.60",),
        provider="outlook",
        cause="The signed-in mailbox may not send as the address in the message's From.",
        remedy="in Exchange Online PowerShell: Add-RecipientPermission <the From address> "
        f"-Trustee {MAILBOX} -AccessRights SendAs; for an application, -Trustee is its service "
        "principal",
        source=_SMTP_ISSUES,
        example="554 5.2.252 SendAsDenied; alice@example.com not allowed to send as "
        "bob@example.com; STOREDRV.Submission.Exception:SendAsDeniedException."
        "MapiExceptionSendAsDenied",
    ),
    Advice(
        says=("^530", "5.7.57"),
        provider="outlook",
        cause="The session sent mail before it had logged in.",
        remedy="let the client log in at this relay, and point it here, not at smtp.office365.com",
        source=_SMTP_ISSUES,
        example="530 5.7.57 Client not authenticated to send mail.",
    ),
    Advice(
        says=("432 | 4.3.2", "concurrent connections limit | thread limit exceeded"),
        provider="outlook",
        cause="More than three connections submit for this mailbox at one time, other programs' "
        "included.",
        remedy='lower "max_connections" under "limits" of this account, or stop the other '
        "programs that send from it",
        retry=Retry.LATER,
        source=_LIMITS,
        example="432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
    ),
    Advice(
        says=(
            "5.2.0",
            "submissionquotaexceededexception | submissionquotaexceeded | submission quota",
        ),
        provider="outlook",
        cause="The mailbox has written to as many recipients as Microsoft allows a day (10,000).",
        remedy="send the rest tomorrow, or from another mailbox",
        retry=Retry.TOMORROW,
        source=_LIMITS,
        example="554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; "
        "Failed to process message due to a permanent exception",
    ),
    Advice(
        says=("^554", "5.2.2", "storedrv | mailbox full"),
        provider="outlook",
        cause="The mailbox is full: what is sent is kept in its Sent Items too.",
        remedy="empty Sent Items, or set a retention policy for it",
        source=_LIMITS,
        example="554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException",
    ),
    Advice(
        says=("^501", "5.5.127 | token will expire soon"),
        provider="outlook",
        cause="High Volume Email wants a token that is valid for ten more minutes at least.",
        remedy='set "refresh_window_seconds" of this account to 900',
        retry=Retry.FRESH_TOKEN,
        source="field report",
        example="501 5.5.127 Token will expire soon",
    ),
    Advice(
        says=("^501", "5.5.124"),
        provider="outlook",
        cause="The address used for the login is no mailbox of that server.",
        remedy='set "email" of the account to the High Volume Email account\'s own address',
        source="field report",
        example="501 5.5.124 Invalid XOAUTH2 auth data - User address provided is not valid",
    ),
    Advice(
        says=("^430", "4.2.0 | mailbox logon failure | mapiexceptionlogonfailed"),
        provider="outlook",
        cause="The application logged in but may not open the mailbox; waiting does not help.",
        remedy="in Exchange Online PowerShell: New-ServicePrincipal -AppId <client id> -ObjectId "
        "<object id of the Enterprise application, not of the app registration>; then "
        f"Add-MailboxPermission {MAILBOX} -User <service principal> -AccessRights FullAccess",
        source=f"field report; {_SMTP_OAUTH}",
        example="430 4.2.0 STOREDRV; mailbox logon failure; Failed to process message due to a "
        "transient exception; MapiExceptionLogonFailed",
    ),
    Advice(
        says=("^550", "5.1.8"),
        provider="outlook",
        cause="Microsoft has blocked the mailbox from sending, as a rule for spam.",
        remedy="change the user's password, then unblock it in the Microsoft Defender portal: "
        "Email & collaboration > Review > Restricted entities",
        source=f"{_LEARN}/defender-office-365/outbound-spam-restore-restricted-users",
        example="550 5.1.8 Access denied, bad outbound sender",
    ),
    Advice(
        says=("^451", "4.7.0", "temporary server error"),
        provider="outlook",
        cause="Exchange Online has a passing trouble of its own.",
        remedy="wait; the client should try again",
        retry=Retry.LATER,
        source=_SMTP_ISSUES,
        example="451 4.7.0 Temporary server error. Please try again later. PRX4",
    ),
)

_RFC_OAUTH = "RFC 6749 §5.2"

_ANY_SMTP = (
    Advice(
        says=("#auth005 | too many bad auth attempts",),
        provider="yahoo",
        cause="Yahoo refused too many logins of this mailbox in a row and takes none for a while.",
        remedy=f"wait an hour, then {ASK_THE_DOCTOR}",
        retry=Retry.LATER,
        source="field report",
        example="535 5.7.0 (#AUTH005) Too many bad auth attempts.",
    ),
    Advice(
        says=("454", "4.7.0", "the provider offers no xoauth2"),
        cause="The server does not offer XOAUTH2: it is no server for OAuth logins.",
        remedy='look at "upstream" of the account: host, port and tls',
        source="this relay",
        example="454 4.7.0 The provider offers no XOAUTH2",
    ),
    Advice(
        says=("^552 | ^523", "5.3.4"),
        cause="The message is larger than the provider takes.",
        remedy="send a smaller message; an attachment grows by a third on its way",
        source="RFC 1870 §6.1",
        example="552 5.3.4 Your message exceeded Google's message size limits.",
    ),
    Advice(
        says=("^452", "4.5.3"),
        cause="The message has more recipients than the provider takes at once.",
        remedy='lower "max_recipients" under "relay", so that clients divide their messages',
        retry=Retry.LATER,
        source="RFC 5321 §4.5.3.1.10",
        example="452 4.5.3 Your message has too many recipients.",
    ),
    Advice(
        says=("^535",),
        cause="The provider refused the access token.",
        remedy=ASK_THE_DOCTOR,
        retry=Retry.FRESH_TOKEN,
        source="RFC 4954 §6",
        example="535 5.7.8 Authentication credentials invalid",
    ),
    Advice(
        says=("^454",),
        cause="The provider cannot check logins at the moment.",
        remedy="wait; the client should try again",
        retry=Retry.LATER,
        source="RFC 4954 §6",
        example="454 4.7.0 Temporary authentication failure",
    ),
)

_ANY_OAUTH = (
    Advice(
        says=("interaction_required | consent_required | login_required",),
        cause="The provider wants a person to sign in again.",
        remedy=SIGN_IN_AGAIN,
        source="OpenID Connect Core 1.0 §3.1.2.6",
        example="interaction_required: The request requires user interaction.",
    ),
    Advice(
        says=("invalid_grant",),
        cause="The sign-in is no longer valid: expired, revoked, or another client's.",
        remedy=SIGN_IN_AGAIN,
        source=_RFC_OAUTH,
        example="invalid_grant: The refresh token is invalid or expired.",
    ),
    Advice(
        says=("invalid_client",),
        cause="The provider does not know the client id, or its secret is wrong or has expired.",
        remedy='look at "client_id" and "client_secret" of the account',
        source=_RFC_OAUTH,
        example="invalid_client: The OAuth client was not found.",
    ),
    Advice(
        says=("unauthorized_client",),
        cause="The provider does not let this client ask for tokens in this way.",
        remedy='look at "client_id" and "grant" of the account, and at the client\'s settings at '
        "the provider",
        source=_RFC_OAUTH,
        example="unauthorized_client: The client is not authorized to use this grant type.",
    ),
    Advice(
        says=("invalid_scope | invalid_resource | invalid_target",),
        cause="The provider does not give out what was asked for.",
        remedy='look at "scopes" of the account, and at the permissions of the client at the '
        "provider",
        source=_RFC_OAUTH,
        example="invalid_scope: Unknown scope.",
    ),
    Advice(
        says=("unsupported_grant_type | invalid_request",),
        cause="The token endpoint did not understand the request.",
        remedy='look at "oauth_token_url", "grant" and "parameters" of the account',
        source=_RFC_OAUTH,
        example="unsupported_grant_type: Grant type not supported.",
    ),
    Advice(
        says=("temporarily_unavailable | server_error | slow_down",),
        cause="The provider's sign-in service is in trouble, or asked too often.",
        remedy="wait; the relay tries again by itself",
        retry=Retry.LATER,
        source="RFC 6749 §4.1.2.1",
        example="temporarily_unavailable: Try again.",
    ),
)

TABLE = (
    *_ENTRA_ROWS,
    *_GOOGLE_ROWS,
    *_ANY_OAUTH,
    *_EXCHANGE_ROWS,
    *_GMAIL_ROWS,
    *_ANY_SMTP,
)
